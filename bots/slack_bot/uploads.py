"""Pictures on their way into a message: uploaded once, and deleted again when nothing shows them any more."""

from __future__ import annotations

import hashlib
import logging

import aiohttp

from bots.delivery.content import Picture
from bots.delivery.surface import SurfaceError
from bots.slack_bot.origin import Origin
from bots.slack_bot.workspaces import PlatformUnavailableError, Workspace, proxy_for
from workers.errors import WorkersError

_log = logging.getLogger("palaver.slack")


class Uploads:
    """The pictures of one answer.

    Args:
        session: Shared connections.
        origin: Where the platform's files lie.
    """

    def __init__(self, session: aiohttp.ClientSession, origin: Origin) -> None:
        self._session = session
        self._origin = origin
        self._files: dict[str, str] = {}
        self._shown: dict[str, dict[str, str]] = {}
        self._workspace: Workspace | None = None

    async def put(self, workspace: Workspace, picture: Picture) -> str:
        """Upload a picture unless it is there already; returns the file's id.

        Raises:
            SurfaceError: The platform does not take it.
            PlatformUnavailableError: It does not answer.
        """
        self._workspace = workspace
        digest = _digest(picture)
        if digest not in self._files:
            self._files[digest] = await self._upload(workspace, picture)
        return self._files[digest]

    async def tidy(self, message_id: str, pictures: tuple[Picture, ...]) -> None:
        """Delete the files that a message showed before and shows no more: previews."""
        now = {digest: self._files[digest] for digest in map(_digest, pictures) if digest in self._files}
        before, self._shown[message_id] = self._shown.get(message_id, {}), now
        for digest, file_id in before.items():
            if digest not in now and self._workspace is not None:
                self._files.pop(digest, None)
                await self._delete(self._workspace, file_id)

    async def _delete(self, workspace: Workspace, file_id: str) -> None:
        try:
            await workspace.call("files.delete", file=file_id)
        except (SurfaceError, WorkersError) as error:
            _log.info("a preview was not deleted: %s", error)

    async def _upload(self, workspace: Workspace, picture: Picture) -> str:
        place = await workspace.ask(
            "files.getUploadURLExternal", filename=picture.name, length=len(picture.data), alt_txt=picture.alt[:1_000]
        )
        url = str(place["upload_url"])
        if not self._origin.owns(url):
            raise PlatformUnavailableError("The platform names an address for uploads that is not its own.")
        # Without the token: the address itself is the permission.
        try:
            async with self._session.post(
                url, data=picture.data, allow_redirects=False, proxy=proxy_for(url)
            ) as response:
                if response.status != 200:
                    raise PlatformUnavailableError(f"An upload was answered with {response.status}.")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PlatformUnavailableError(f"An upload was not answered ({type(error).__name__}).") from None
        files = [{"id": place["file_id"], "title": picture.name}]
        await workspace.call("files.completeUploadExternal", files=files)
        return str(place["file_id"])


def _digest(picture: Picture) -> str:
    return hashlib.sha256(picture.name.encode() + b"\0" + picture.data).hexdigest()
