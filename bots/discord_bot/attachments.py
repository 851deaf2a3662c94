"""Attachments of prompts: fetched from Discord's own origin alone, within limits of number, size and type."""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp
import discord
from yarl import URL

from bots.settings import DiscordSettings
from workers.errors import WorkersError

_MAX_ATTACHMENTS = 4
_TIMEOUT_S = 20.0
_PIECE_BYTES = 65_536
_TEXT_SUFFIXES = (
    ".txt", ".md", ".csv", ".tsv", ".json", ".yaml", ".yml", ".toml", ".ini", ".xml", ".html", ".css", ".log",
    ".py", ".js", ".ts", ".c", ".h", ".cpp", ".rs", ".go", ".java", ".rb", ".sh", ".sql", ".diff", ".patch",
)  # fmt: skip
_PICTURE_TYPES = ("image/png", "image/jpeg", "image/webp")


class AttachmentError(WorkersError):
    """An attachment cannot be taken; the message says what can."""

    code = "bad_attachment"
    exit_code = 65


class Attachments:
    """Fetches attachments.

    Args:
        settings: Origin and limits.
    """

    def __init__(self, settings: DiscordSettings) -> None:
        self._settings = settings
        self._origin = URL(settings.cdn_base_url).origin()

    async def with_texts(self, text: str, attachments: Sequence[discord.Attachment]) -> str:
        """A prompt followed by the text files that came with it.

        Raises:
            AttachmentError: One of them is no text, too large, or cannot be fetched.
        """
        if len(attachments) > _MAX_ATTACHMENTS:
            raise AttachmentError(f"At most {_MAX_ATTACHMENTS} files can be sent along.")
        parts = [text] if text else []
        left_chars = self._settings.max_text_chars
        for attachment in attachments:
            content = await self._text(attachment)
            left_chars -= len(content)
            if left_chars < 0:
                raise AttachmentError(
                    f"The files are too long: together they may have {self._settings.max_text_chars} characters."
                )
            parts.append(f"{attachment.filename}:\n{content}")
        return "\n\n".join(parts)

    async def picture(self, attachment: discord.Attachment) -> bytes:
        """A picture to begin from.

        Raises:
            AttachmentError: It is no picture, too large, or cannot be fetched.
        """
        if _media_type(attachment) not in _PICTURE_TYPES:
            raise AttachmentError("Only PNG, JPEG and WebP pictures can be drawn from.")
        return await self._fetch(attachment)

    async def document(self, attachment: discord.Attachment) -> bytes:
        """A document of any format.

        Raises:
            AttachmentError: It is too large, or cannot be fetched.
        """
        return await self._fetch(attachment)

    async def _text(self, attachment: discord.Attachment) -> str:
        is_text = _media_type(attachment).startswith("text/") or attachment.filename.lower().endswith(_TEXT_SUFFIXES)
        if not is_text:
            raise AttachmentError(f"{attachment.filename[:60]} is no text file; only those can be read here.")
        try:
            return (await self._fetch(attachment)).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise AttachmentError(f"{attachment.filename[:60]} is not UTF-8 text.") from None

    async def _fetch(self, attachment: discord.Attachment) -> bytes:
        limit_bytes = self._settings.max_attachment_bytes
        too_large = AttachmentError(f"{attachment.filename[:60]} is larger than {limit_bytes // 1024} KiB.")
        url = URL(attachment.url)
        if url.origin() != self._origin:
            raise AttachmentError("Files are only fetched from Discord itself.")
        if attachment.size > limit_bytes:
            raise too_large
        data = bytearray()
        try:
            timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
            # Never a redirect: it could lead anywhere.
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(url, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise AttachmentError("A file could not be fetched from Discord. Please send it again.")
                async for piece in response.content.iter_chunked(_PIECE_BYTES):
                    data += piece
                    if len(data) > limit_bytes:  # the size that was told is not to be trusted
                        raise too_large
        except (aiohttp.ClientError, TimeoutError):
            raise AttachmentError("A file could not be fetched from Discord. Please send it again.") from None
        return bytes(data)


def _media_type(attachment: discord.Attachment) -> str:
    return (attachment.content_type or "").partition(";")[0].strip().lower()
