"""Files that people attach: text that the model is to read, pictures to begin from.

Fetched from the platform alone, small ones alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import aiohttp

from bots.slack_bot.origin import Origin
from bots.slack_bot.workspaces import Workspace, proxy_for
from workers.errors import WorkersError

_MOST_FILES = 5
_TEXT_TYPES = frozenset(
    {
        "application/json", "application/toml", "application/x-sh", "application/x-yaml", "application/xml",
        "application/yaml", "application/javascript", "application/sql", "application/x-python",
    }
)  # fmt: skip
_PICTURE_TYPES = ("image/png", "image/jpeg", "image/webp")
#: Longer addresses do not fit into a modal beside what else it carries.
_URL_CHARS = 1_500
_TIMEOUT_S = 10

_log = logging.getLogger("palaver.slack")


@dataclass(frozen=True, slots=True)
class Attached:
    """What came of a message's files.

    Attributes:
        text: To put below the question; empty without files.
        refused: For the user: which files are not read, and why.
        names: Of the files that are.
    """

    text: str = ""
    refused: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


class FileRefusedError(WorkersError):
    """A file cannot be taken; the message says what can."""

    code = "bad_attachment"
    exit_code = 65


class Files:
    """Reads attached files.

    Args:
        session: Shared connections.
        origin: Whose addresses are fetched.
        max_bytes: Of one text file.
        max_picture_bytes: Of a picture.
    """

    def __init__(self, session: aiohttp.ClientSession, origin: Origin, max_bytes: int, max_picture_bytes: int) -> None:
        self._session = session
        self._origin = origin
        self._max_bytes = max_bytes
        self._max_picture_bytes = max_picture_bytes

    async def read(self, workspace: Workspace, files: list[dict[str, Any]]) -> Attached:
        """Fetch the texts among a message's files.

        Args:
            workspace: Whose token may be shown to the platform.
            files: As they appear in the message.
        """
        texts, refused, names = [], [], []
        for number, file in enumerate(files):
            name = str(file.get("name") or "a file")[:80]
            reason = "only the first five files are read" if number >= _MOST_FILES else self._unwanted(file)
            data = None if reason else await self._fetch(workspace, _url(file), self._max_bytes)
            text = None if data is None or b"\0" in data else data.decode("utf-8", errors="replace")
            if text is None:
                refused.append(f"{name}: {reason or 'it could not be fetched as text'}")
            else:
                names.append(name)
                texts.append(f"\n\nFile {name}:\n```\n{text.strip()}\n```")
        return Attached("".join(texts), tuple(refused), tuple(names))

    async def picture(self, workspace: Workspace, file: dict[str, Any]) -> bytes:
        """Fetch a picture: to begin from, or to look at.

        Args:
            workspace: Whose token may be shown to the platform.
            file: As it appears in the message.

        Raises:
            FileRefusedError: It is no picture, too large, lies elsewhere, or cannot be fetched.
        """
        if _media_type(file) not in _PICTURE_TYPES:
            raise FileRefusedError("Only PNG, JPEG and WebP pictures are read.")
        if not self._origin.owns(_url(file)):
            raise FileRefusedError("Pictures are only fetched from Slack itself.")
        data = await self._fetch(workspace, _url(file), self._max_picture_bytes)
        if data is None:
            most = self._max_picture_bytes // 1_000
            raise FileRefusedError(f"The picture could not be fetched from Slack, or is larger than {most} kB.")
        return data

    async def document(self, workspace: Workspace, file: dict[str, Any]) -> bytes:
        """Fetch a document of any format.

        Args:
            workspace: Whose token may be shown to the platform.
            file: As it appears in the message.

        Raises:
            FileRefusedError: It is too large, lies elsewhere, or cannot be fetched.
        """
        data = None
        if self._origin.owns(_url(file)):
            data = await self._fetch(workspace, _url(file), self._max_picture_bytes, pages=True)
        if data is None:
            most = self._max_picture_bytes // 1_000
            raise FileRefusedError(f"The file could not be fetched from Slack, or is larger than {most} kB.")
        return data

    def _unwanted(self, file: dict[str, Any]) -> str | None:
        media_type = _media_type(file)
        if not (media_type.startswith("text/") or media_type in _TEXT_TYPES):
            return "only text files are read"
        if int(file.get("size") or 0) > self._max_bytes:
            return f"it is larger than {self._max_bytes // 1000} kB"
        if not self._origin.owns(_url(file)):
            return "it does not lie in Slack"
        return None

    async def _fetch(self, workspace: Workspace, url: str, max_bytes: int, *, pages: bool = False) -> bytes | None:
        headers = {"Authorization": f"Bearer {workspace.client.token}"}
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            # No redirects: the token would go along to wherever they lead.
            async with self._session.get(
                url, headers=headers, allow_redirects=False, timeout=timeout, proxy=proxy_for(url)
            ) as response:
                # Without the right to a file, Slack answers with the page of its login.
                if response.status != 200 or (response.content_type == "text/html" and not pages):
                    return None
                data = b""
                async for chunk in response.content.iter_chunked(65_536):
                    data += chunk
                    if len(data) > max_bytes:
                        return None
        except (aiohttp.ClientError, TimeoutError) as error:
            _log.info("a file was not fetched: %s", type(error).__name__)
            return None
        return data


def picture_of(message: dict[str, Any]) -> tuple[str, str]:
    """Address and media type of the first picture of a message; nothing if it has none."""
    for file in message.get("files") or []:
        if _media_type(file) in _PICTURE_TYPES and len(_url(file)) <= _URL_CHARS:
            return _url(file), _media_type(file)
    return "", ""


def _url(file: dict[str, Any]) -> str:
    return str(file.get("url_private_download") or "")


def _media_type(file: dict[str, Any]) -> str:
    return str(file.get("mimetype") or "").partition(";")[0].strip().lower()
