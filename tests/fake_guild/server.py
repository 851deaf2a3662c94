"""A stand-in for Discord at protocol level, and what people do in it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.fake_guild.gateway import Gateway
from tests.fake_guild.rest import Rest
from tests.fake_guild.rules import RateLimits, Rules
from tests.fake_guild.world import (
    ALICE,
    APPLICATION,
    CHANNEL,
    GUILD,
    MEMBER_PERMISSIONS,
    Channel,
    Interaction,
    Message,
    World,
)

_POLL_S = 0.02
_TYPES = {str: 3, int: 4, bool: 5, float: 10}


class FakeGuild:
    """REST, gateway and CDN on one port of this machine; use as an async context manager."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.world = World()
        self.limits = RateLimits(self.rules)
        self.gateway = Gateway(self.world, self.rules, "")
        self.rest: Rest
        self.api_url = self.gateway_url = self.cdn_url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> FakeGuild:
        app = web.Application(client_max_size=64 * 2**20)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        # Routes need the port, so it is found first.
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        self.api_url, self.gateway_url = f"http://127.0.0.1:{port}/api/v10", f"ws://127.0.0.1:{port}/gateway"
        self.cdn_url = f"http://127.0.0.1:{port}/cdn"
        self.gateway.url = self.gateway_url
        self.rest = Rest(self.world, self.rules, self.limits, self.gateway, self.cdn_url)
        app.add_routes([*self.rest.routes(), web.get("/gateway", self.gateway.handle)])
        app.add_routes([web.get("/gateway/", self.gateway.handle)])
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    # What people do

    async def say(
        self,
        text: str,
        user: int = ALICE,
        channel: int = CHANNEL,
        reply_to: int | None = None,
        files: dict[str, bytes] | None = None,
        file_url: str | None = None,
    ) -> Message:
        """Somebody writes a message."""
        message = Message(self.world.snowflake(), channel, user, text, reference=reply_to)
        message.attachments = [self._upload(name, data, file_url) for name, data in (files or {}).items()]
        self.world.messages[message.id] = message
        guild = self.world.channels[channel].guild
        await self.gateway.dispatch(
            "MESSAGE_CREATE", self.world.message(message, private_content=not self.rules.message_content), guild
        )
        return message

    async def mention(self, text: str, **where: Any) -> Message:
        """Somebody mentions the bot."""
        return await self.say(f"<@{APPLICATION}> {text}", **where)

    def direct(self, user: int = ALICE) -> int:
        """The channel of direct messages with somebody."""
        return self.rest.direct(user).id

    async def command(
        self,
        name: str,
        user: int = ALICE,
        channel: int = CHANNEL,
        files: dict[str, bytes] | None = None,
        **options: Any,
    ) -> Interaction:
        """Somebody uses a command; ``group_sub`` names one of a group."""
        name, _, sub = name.partition(" ")
        resolved: dict[str, Any] = {}
        given = [{"name": key, "type": _TYPES[type(value)], "value": value} for key, value in options.items()]
        for key, data in (files or {}).items():
            name_of_file, _, _ = key.partition("=")
            option, filename = key.split("=")
            attachment = self._upload(filename, data, None)
            resolved = {"attachments": {attachment["id"]: attachment}}
            given.append({"name": option, "type": 11, "value": attachment["id"]})
            del name_of_file
        if sub:
            given = [{"name": sub, "type": 1, "options": given}]
        data_ = {"id": str(self.world.snowflake()), "name": name, "type": 1, "options": given, "resolved": resolved}
        return await self._interact(2, data_, user, channel)

    async def menu(self, name: str, message: Message, user: int = ALICE) -> Interaction:
        """Somebody chooses an entry of a message's menu."""
        resolved = {"messages": {str(message.id): self.world.message(message)}}
        data = {"id": str(self.world.snowflake()), "name": name, "type": 3, "target_id": str(message.id)}
        return await self._interact(2, data | {"resolved": resolved}, user, message.channel)

    async def autocomplete(self, name: str, option: str, typed: str, user: int = ALICE, **chosen: str) -> Interaction:
        """Somebody types into an option, after having chosen others."""
        name, _, sub = name.partition(" ")
        given: list[dict[str, Any]] = [{"name": key, "type": 3, "value": value} for key, value in chosen.items()]
        given.append({"name": option, "type": 3, "value": typed, "focused": True})
        if sub:
            given = [{"name": sub, "type": 1, "options": given}]
        data = {"id": str(self.world.snowflake()), "name": name, "type": 1, "options": given}
        return await self._interact(4, data, user, CHANNEL)

    async def press(self, message: Message, custom_id: str, user: int = ALICE) -> Interaction:
        """Somebody presses a button."""
        data = {"custom_id": custom_id, "component_type": 2}
        return await self._interact(3, data, user, message.channel, message)

    async def submit(self, interaction: Interaction, text: str, user: int = ALICE) -> Interaction:
        """Somebody sends the form that a press has opened."""
        assert interaction.modal is not None
        label = interaction.modal["components"][0]
        field = label["component"]
        part = {"type": 18, "id": 1, "component": {"type": 4, "id": 2, "custom_id": field["custom_id"], "value": text}}
        data = {"custom_id": interaction.modal["custom_id"], "components": [part]}
        source = self.world.messages.get(interaction.source or 0)
        return await self._interact(5, data, user, interaction.channel, source)

    async def open_bot_thread(self) -> int:
        """A thread that the bot has opened."""
        thread = Channel(self.world.snowflake(), GUILD, 11, CHANNEL, owner=APPLICATION)
        self.world.channels[thread.id] = thread
        await self.gateway.dispatch("THREAD_CREATE", self.world.channel(thread.id))
        return thread.id

    async def delete(self, message: Message) -> None:
        """A moderator deletes a message."""
        self.world.messages.pop(message.id, None)
        ids = {"id": str(message.id), "channel_id": str(message.channel), "guild_id": str(GUILD)}
        await self.gateway.dispatch("MESSAGE_DELETE", ids)

    async def _interact(
        self, kind: int, data: dict[str, Any], user: int, channel: int, source: Message | None = None
    ) -> Interaction:
        guild = self.world.channels[channel].guild
        made = Interaction(self.world.snowflake(), secrets.token_urlsafe(40), user, channel, guild)
        made.source = source.id if source else None
        self.world.interactions[made.token] = made
        event: dict[str, Any] = {
            "id": str(made.id), "application_id": str(APPLICATION), "type": kind, "data": data, "token": made.token,
            "version": 1, "channel_id": str(channel), "channel": self.world.channel(channel), "locale": "en-US",
            "app_permissions": str(MEMBER_PERMISSIONS), "entitlements": [], "context": 0 if guild else 1,
            "attachment_size_limit": self.rules.max_file_bytes,
            "authorizing_integration_owners": {"0": str(guild or 0)} if self.world.installed else {"1": str(user)},
        }  # fmt: skip
        if guild:
            event |= {"guild_id": str(guild), "member": self.world.member(user, permissions=True)}
            event["guild"] = {"id": str(guild), "features": [], "locale": "en-US"}
        else:
            event["user"] = self.world.user(user)
        if source is not None:
            event["message"] = self.world.message(source)
        made.created_s = time.monotonic()
        await self.gateway.dispatch("INTERACTION_CREATE", event, guild)
        return made

    def _upload(self, name: str, data: bytes, url: str | None) -> dict[str, Any]:
        path = f"attachments/1/{self.world.snowflake()}/{name}"
        self.world.files[path] = data
        kinds = {"png": "image/png", "txt": "text/plain", "md": "text/markdown", "py": "text/x-python"}
        place = url or f"{self.cdn_url}/{path}"
        return {
            "id": str(self.world.snowflake()), "filename": name, "size": len(data), "url": place, "proxy_url": place,
            "content_type": kinds.get(name.rpartition(".")[2], "application/octet-stream"),
        }  # fmt: skip

    # What they see

    def answers(self, to: Message | None = None, channel: int | None = None) -> list[Message]:
        """Messages of the bot in order: those after a message in its channel, or all of a channel."""
        channel = to.channel if to else channel
        own = [each for each in self.world.messages.values() if each.author == APPLICATION]
        return sorted(
            (each for each in own if channel in (None, each.channel) and (to is None or each.id > to.id)),
            key=lambda each: each.id,
        )

    def response(self, interaction: Interaction) -> Message | None:
        """The message in which a command is answered."""
        return self.world.messages.get(interaction.message or 0)

    def whispers(self, interaction: Interaction) -> list[str]:
        """What only the user of an interaction sees."""
        ids = [interaction.message, *interaction.follow_ups]
        found = [self.world.messages[each] for each in ids if each in self.world.messages]
        return [each.content for each in found if each.visible_to == interaction.user and not each.loading]


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """Wait for something to be true, and return it."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"waited {timeout_s:.0f} s for {what}"
        await asyncio.sleep(_POLL_S)
    return value
