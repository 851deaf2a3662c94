"""Where a command's answer goes when the bot may not write in the channel: to who asked, and to nobody else.

First through the command's ``response_url``, which takes five messages within half an hour and edits none, so only the
end is shown there; then, when that has run out, into a direct message.
"""

from __future__ import annotations

import time
from typing import Any

import aiohttp

from bots.delivery.content import View
from bots.delivery.ledger import Place
from bots.delivery.pacing import Budget
from bots.delivery.rollover import Life
from bots.delivery.splitting import Measure
from bots.delivery.surface import ExpiredError, SlowDownError, Surface
from bots.slack_bot import blocks, wording
from bots.slack_bot.markup import measure
from bots.slack_bot.origin import Origin
from bots.slack_bot.workspaces import PlatformUnavailableError, Workspace, proxy_for

#: The platform takes five; one may have been used for a private word.
MOST_USES = 4
_LIFE_S = 29 * 60.0


class ResponseUrls:
    """Sends private words through ``response_url``.

    Args:
        session: Shared connections.
        origin: Whose addresses are written to.
    """

    def __init__(self, session: aiohttp.ClientSession, origin: Origin) -> None:
        self._session = session
        self._origin = origin

    async def send(self, url: str, body: dict[str, Any]) -> None:
        """Use a ``response_url`` once.

        Raises:
            ExpiredError: It has run out.
            SlowDownError: Too many calls.
            PlatformUnavailableError: It was not answered.
        """
        if not self._origin.owns(url):
            raise ExpiredError("the address is not the platform's")
        try:
            async with self._session.post(url, json=body, allow_redirects=False, proxy=proxy_for(url)) as response:
                status, retry = response.status, response.headers.get("Retry-After", "1")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PlatformUnavailableError(f"A response_url was not answered ({type(error).__name__}).") from None
        if status == 429:
            raise SlowDownError(float(retry) if retry.isdecimal() else 1.0)
        if status >= 500:
            raise PlatformUnavailableError(f"A response_url was answered with {status}.")
        if status != 200:
            raise ExpiredError(f"the response_url was answered with {status}")


class ResponseSurface:
    """An answer through a ``response_url``.

    Args:
        url: Of the command.
        urls: Sends.
        fallback: What comes when it has run out.
        made_s: When the command came, Unix time.
    """

    def __init__(self, url: str, urls: ResponseUrls, fallback: Surface, made_s: float) -> None:
        self._url = url
        self._urls = urls
        self._fallback = fallback
        self._made_s = made_s
        self._budget = Budget(60, 60.0)
        self._uses = 0

    @property
    def limit(self) -> int:
        """As everywhere."""
        return blocks.MARKDOWN_LIMIT

    @property
    def measure(self) -> Measure:
        """As everywhere."""
        return measure

    @property
    def budget(self) -> Budget:
        """Its own: what counts is how often it is used."""
        return self._budget

    def fallback(self) -> Surface | None:
        """A direct message."""
        return self._fallback

    async def announce(self, view: View) -> bool:
        """Only the end is worth one of five messages."""
        del view
        return True

    async def post(self, view: View, place: Place) -> str:
        """Send an end."""
        if time.time() - self._made_s > _LIFE_S or self._uses >= MOST_USES or view.pictures or place.reserved_before:
            # A reservation may have been used; a direct message can be looked for, this cannot.
            raise ExpiredError("the response_url has run out")
        self._uses += 1
        note = [blocks.context(wording.NOT_HERE)] if place.index % 1_000 == 0 else []
        body = {"response_type": "ephemeral", "text": blocks.summary(view.text), "replace_original": False}
        await self._urls.send(self._url, body | {"blocks": [blocks.markdown(view.text), *note]})
        return f"response-{place.index}"

    async def edit(self, message_id: str, view: View) -> None:
        """There is nothing to edit: what was sent was an end."""

    async def delete(self, message_id: str) -> None:
        """Likewise."""

    def life(self, message_id: str) -> Life:
        """Nothing grows here."""
        del message_id
        return Life.FRESH


class DirectSurface:
    """An answer in a direct message, edited as it grows.

    Args:
        workspace: Whose.
        user: To whom.
        open_surface: Makes the surface of a channel, once the direct message is open.
    """

    def __init__(self, workspace: Workspace, user: str, open_surface: Any) -> None:
        self._workspace = workspace
        self._user = user
        self._open_surface = open_surface
        self._inner: Any = None
        self._budget = Budget(45, 60.0, reserve=15)

    @property
    def limit(self) -> int:
        """As everywhere."""
        return blocks.MARKDOWN_LIMIT

    @property
    def measure(self) -> Measure:
        """As everywhere."""
        return measure

    @property
    def budget(self) -> Budget:
        """That of one conversation."""
        return self._budget

    def fallback(self) -> Surface | None:
        """There is no other way."""
        return None

    async def announce(self, view: View) -> bool:
        """Waiting lines are messages here."""
        del view
        return False

    async def post(self, view: View, place: Place) -> str:
        """Post a message."""
        inner = await self._channel()
        return str(await inner.post(view, place))

    async def edit(self, message_id: str, view: View) -> None:
        """Edit it."""
        await (await self._channel()).edit(message_id, view)

    async def delete(self, message_id: str) -> None:
        """Delete it."""
        await (await self._channel()).delete(message_id)

    def life(self, message_id: str) -> Life:
        """Edited messages have no end."""
        del message_id
        return Life.FRESH

    async def _channel(self) -> Any:
        if self._inner is None:
            opened = await self._workspace.call("conversations.open", users=self._user)
            self._inner = self._open_surface(str(opened["channel"]["id"]))
        return self._inner
