"""The places in Discord where an answer can be shown: an interaction's response, a channel, a direct message."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import discord

from bots.delivery import picture_fitting
from bots.delivery.buttons import parse
from bots.delivery.content import Picture, View
from bots.delivery.display import FALLBACK_BASE
from bots.delivery.ledger import Place
from bots.delivery.pacing import Budget
from bots.delivery.rollover import Life
from bots.delivery.splitting import Measure, utf16_units
from bots.delivery.surface import ExpiredError, GoneError, Surface
from bots.discord_bot.faults import CannotReplyError, TooLargeError, mapped
from bots.discord_bot.handles import Handle
from bots.discord_bot.outbound import Outbound

LIMIT_CHARS = 2_000
_TOO_LARGE = "\n(The picture is larger than files may be here.)"
_LOOK_BACK_MESSAGES = 50

#: Instead of an id; the library types ids as numbers and passes them on.
_ORIGINAL: Any = "@original"

Buttons = Callable[[View], discord.ui.View | None]


@dataclass(frozen=True, slots=True)
class Means:
    """What every surface needs.

    Attributes:
        client: Connected to the REST API at least.
        outbound: The budgets.
        buttons: Makes the platform's buttons.
    """

    client: discord.Client
    outbound: Outbound
    buttons: Buttons


class _Base:
    """What the surfaces have in common."""

    def __init__(self, means: Means, handle: Handle) -> None:
        self._means = means
        self._handle = handle

    @property
    def limit(self) -> int:
        """Longest message."""
        return LIMIT_CHARS

    @property
    def measure(self) -> Measure:
        """Discord counts as JavaScript does."""
        return utf16_units

    async def announce(self, view: View) -> bool:
        """There is no other place than messages."""
        del view
        return False

    def life(self, message_id: str) -> Life:
        """Edited messages have no end."""
        del message_id
        return Life.FRESH

    async def _with_content(self, view: View, send: Callable[[dict[str, Any]], Awaitable[Any]]) -> Any:
        """Send a message's content; pictures that are too large even when recompressed are left out, and that is said.

        Args:
            view: What to show.
            send: Takes the arguments of an edit.
        """
        limit_bytes = int(self._handle.max_file_bytes)
        fitted = [await asyncio.to_thread(picture_fitting.fit, each, limit_bytes) for each in view.pictures]
        pictures = [each for each in fitted if each is not None]
        try:
            with mapped():
                return await send(self._arguments(view, pictures))
        except TooLargeError:
            with mapped():
                return await send(self._arguments(view, []))

    def _arguments(self, view: View, pictures: list[Picture]) -> dict[str, Any]:
        files = [
            discord.File(io.BytesIO(each.data), each.name, description=each.alt, spoiler=each.covered)
            for each in pictures
        ]
        text = view.text
        if len(pictures) < len(view.pictures):
            text = text[: LIMIT_CHARS - len(_TOO_LARGE)] + _TOO_LARGE
        return {"content": text, "attachments": files, "view": self._means.buttons(view)}


class ChannelSurface(_Base):
    """Messages of the bot in a channel, the first a reply to what is answered.

    Args:
        means: The client and its like.
        handle: Where.
        direct: Whether to go to the user's direct messages instead of the channel.
    """

    def __init__(self, means: Means, handle: Handle, direct: bool = False) -> None:
        super().__init__(means, handle)
        self._direct = direct
        self._channel: discord.abc.Messageable | None = None

    @property
    def budget(self) -> Budget:
        """The channel's."""
        return self._means.outbound.channel(f"@{self._handle.user}" if self._direct else self._handle.channel)

    def fallback(self) -> Surface | None:
        """There is none."""
        return None

    async def post(self, view: View, place: Place) -> str:
        """Post a message, or find the one that was posted."""
        channel = await self._place()
        if place.reserved_before:
            found = await self._find(channel, view, place)
            if found is not None:
                return str(found)
        reference = self._reference() if place.index % FALLBACK_BASE == 0 else None

        async def send(content: dict[str, Any]) -> Any:
            return await channel.send(**_new(content), nonce=place.nonce, reference=reference)

        try:
            message = await self._with_content(view, send)
        except CannotReplyError:
            reference = None
            message = await self._with_content(view, send)
        return str(message.id)

    async def edit(self, message_id: str, view: View) -> None:
        """Edit a message."""
        channel = await self._place()
        await self._with_content(view, lambda content: channel.get_partial_message(int(message_id)).edit(**content))

    async def delete(self, message_id: str) -> None:
        """Delete a message."""
        channel = await self._place()
        try:
            with mapped():
                await channel.get_partial_message(int(message_id)).delete()
        except GoneError:
            return

    async def _place(self) -> Any:
        if self._channel is None:
            if self._direct:
                with mapped():
                    user = await self._means.client.fetch_user(int(self._handle.user))
                    self._channel = await user.create_dm()
            else:
                guild_id = int(self._handle.guild) if self._handle.guild else None
                self._channel = self._means.client.get_partial_messageable(int(self._handle.channel), guild_id=guild_id)
        return self._channel

    def _reference(self) -> discord.MessageReference | None:
        if not self._handle.message or self._direct:
            return None
        return discord.MessageReference(
            message_id=int(self._handle.message),
            channel_id=int(self._handle.channel),
            guild_id=int(self._handle.guild) if self._handle.guild else None,
            fail_if_not_exists=False,
        )

    async def _find(self, channel: Any, view: View, place: Place) -> int | None:
        """The message of a process that died before it could record it; nonces are known for some minutes only."""
        wanted = {button.job_id for button in view.buttons}
        own = self._means.client.user.id if self._means.client.user else None
        try:
            with mapped():
                async for message in channel.history(limit=_LOOK_BACK_MESSAGES):
                    if message.author.id != own or str(message.id) in place.others:
                        continue
                    if _jobs_of(message) & wanted or (view.text and message.content == view.text):
                        return int(message.id)
        except GoneError:
            return None  # reading the history is a right of its own; the nonce has to do
        return None


def _jobs_of(message: discord.Message) -> set[str]:
    """The jobs that a message's buttons belong to."""
    ids = [item.custom_id for row in message.components for item in getattr(row, "children", [])]
    return {button.job_id for button in map(parse, filter(None, ids)) if button}


class InteractionSurface(_Base):
    """An interaction's deferred response, and what follows it.

    Further messages are the bot's own where it is a member: those know nonces and outlive the token. Ids of messages
    that can be edited through the token alone begin with ``@``.
    """

    @property
    def budget(self) -> Budget:
        """The token's."""
        return self._means.outbound.interaction(self._means.client.application_id or 0, self._handle.token)

    def fallback(self) -> Surface | None:
        """Messages of the bot in the channel, or to the user alone if the answer is private."""
        direct = bool(self._handle.private) or not self._handle.installed
        return ChannelSurface(self._means, self._handle, direct)

    async def post(self, view: View, place: Place) -> str:
        """The first message is the response itself, which is there already."""
        if place.index == 0:
            return await self._send(view, lambda hook, content: hook.edit_message(_ORIGINAL, **content))
        if self._handle.installed and not self._handle.private:
            return await ChannelSurface(self._means, self._handle).post(view, place)
        private = bool(self._handle.private)
        return await self._send(view, lambda hook, content: hook.send(**_new(content), wait=True, ephemeral=private))

    async def edit(self, message_id: str, view: View) -> None:
        """Edit the response or a further message."""
        if not message_id.startswith("@"):
            await ChannelSurface(self._means, self._handle).edit(message_id, view)
            return
        await self._send(view, lambda hook, content: hook.edit_message(int(message_id[1:]), **content))

    async def delete(self, message_id: str) -> None:
        """Delete a further message."""
        if not message_id.startswith("@"):
            await ChannelSurface(self._means, self._handle).delete(message_id)
            return
        try:
            with mapped():
                await self._webhook().delete_message(int(message_id[1:]))
        except GoneError:
            return

    async def _send(self, view: View, send: Callable[[discord.Webhook, dict[str, Any]], Awaitable[Any]]) -> str:
        if time.time() > float(self._handle.until or 0):
            raise ExpiredError("the interaction's token ends")
        message = await self._with_content(view, lambda content: send(self._webhook(), content))
        return f"@{message.id}"

    def _webhook(self) -> discord.Webhook:
        # What ``Interaction.followup`` does; after a restart there is no such object.
        payload: Any = {"id": self._means.client.application_id, "type": 3, "token": self._handle.token}
        return discord.Webhook.from_state(data=payload, state=self._means.client._connection)  # noqa: SLF001


def open_surface(means: Means, handle: Handle) -> Surface:
    """The place that a handle names."""
    return InteractionSurface(means, handle) if handle.token else ChannelSurface(means, handle)


def _new(content: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a post, of an edit's."""
    renamed = {"files" if name == "attachments" else name: value for name, value in content.items()}
    return {name: value for name, value in renamed.items() if value}
