"""What exists in the stand-in for Discord: a guild with channels, people, messages and interactions."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

EPOCH_MS = 1_420_070_400_000
EPHEMERAL = 64
LOADING = 128
LIMIT_CHARS = 2_000
TOKEN = "MTAwMA.fake.token"
APPLICATION = 1_000_000_000_000_000_001
GUILD = 2_000_000_000_000_000_001
CHANNEL = 3_000_000_000_000_000_001
OWNER = 4_000_000_000_000_000_001
ALICE, BOB, MODERATOR = (OWNER + number for number in (1, 2, 3))
ROLE = 5_000_000_000_000_000_001

#: View, send, history, threads, attach, use commands.
MEMBER_PERMISSIONS = (1 << 10) | (1 << 11) | (1 << 15) | (1 << 16) | (1 << 31) | (1 << 35) | (1 << 38)
MANAGE_MESSAGES, MANAGE_GUILD = 1 << 13, 1 << 5


def utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


class RejectedError(Exception):
    """What the API answers instead of doing it."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Message:
    id: int
    channel: int
    author: int
    content: str = ""
    flags: int = 0
    components: list[dict[str, Any]] = field(default_factory=list)
    attachments: list[dict[str, Any]] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)
    reference: int | None = None
    nonce: str | None = None
    visible_to: int | None = None
    created_s: float = field(default_factory=time.monotonic)
    history: list[str] = field(default_factory=list)
    interaction: int | None = None

    @property
    def buttons(self) -> dict[str, str]:
        """Custom ids by label."""
        return {item["label"]: item["custom_id"] for row in self.components for item in row["components"]}

    @property
    def loading(self) -> bool:
        return bool(self.flags & LOADING)


@dataclass
class Interaction:
    id: int
    token: str
    user: int
    channel: int
    guild: int | None
    created_s: float = field(default_factory=time.monotonic)
    acknowledged_s: float | None = None
    kind: int | None = None
    message: int | None = None
    source: int | None = None
    modal: dict[str, Any] | None = None
    choices: list[dict[str, Any]] | None = None
    follow_ups: list[int] = field(default_factory=list)


@dataclass
class Channel:
    id: int
    guild: int | None
    type: int = 0
    parent: int | None = None
    owner: int | None = None
    recipient: int | None = None
    deleted: bool = False
    writable: bool = True
    readable: bool = True


class World:
    """The state; every id is a snowflake of the moment it was made."""

    def __init__(self) -> None:
        self._last_id = 0
        self.channels = {CHANNEL: Channel(CHANNEL, GUILD)}
        self.users = {OWNER: "owner", ALICE: "alice", BOB: "bob", MODERATOR: "mod"}
        self.permissions: dict[int, int] = {MODERATOR: MEMBER_PERMISSIONS | MANAGE_MESSAGES | MANAGE_GUILD}
        self.roles: dict[int, list[int]] = {}
        self.messages: dict[int, Message] = {}
        self.interactions: dict[str, Interaction] = {}
        self.pings: list[tuple[int, str]] = []
        self.commands: list[dict[str, Any]] = []
        self.command_syncs = 0
        self.files: dict[str, bytes] = {}
        self.typed: list[int] = []
        self.installed = True

    def snowflake(self) -> int:
        self._last_id = max(self._last_id + 1, (int(time.time() * 1000) - EPOCH_MS) << 22)
        return self._last_id

    # As the API writes them

    def user(self, user_id: int) -> dict[str, Any]:
        bot = user_id == APPLICATION
        name = "palaver" if bot else self.users.get(user_id, f"user{user_id}")
        return {
            "id": str(user_id), "username": name, "discriminator": "0", "global_name": name, "avatar": None, "bot": bot,
        }  # fmt: skip

    def member(self, user_id: int, permissions: bool = False) -> dict[str, Any]:
        member: dict[str, Any] = {
            "roles": [str(role) for role in self.roles.get(user_id, [])], "joined_at": "2026-01-01T00:00:00+00:00",
            "deaf": False, "mute": False, "flags": 0, "nick": None, "avatar": None, "premium_since": None,
        }  # fmt: skip
        if permissions:
            member |= {
                "user": self.user(user_id),
                "permissions": str(self.permissions.get(user_id, MEMBER_PERMISSIONS)),
            }
        return member

    def channel(self, channel_id: int) -> dict[str, Any]:
        channel = self.channels[channel_id]
        data: dict[str, Any] = {"id": str(channel.id), "type": channel.type, "last_message_id": None, "flags": 0}
        if channel.recipient is not None:
            return data | {"recipients": [self.user(channel.recipient)]}
        data |= {
            "guild_id": str(channel.guild), "name": f"channel-{channel.id}", "position": 0, "nsfw": False,
            "topic": None, "permission_overwrites": [], "parent_id": str(channel.parent) if channel.parent else None,
            "rate_limit_per_user": 0,
        }  # fmt: skip
        if channel.type == 11:
            data |= {
                "owner_id": str(channel.owner), "message_count": 1, "member_count": 1,
                "thread_metadata": {
                    "archived": False, "auto_archive_duration": 1440, "locked": False,
                    "archive_timestamp": "2026-01-01T00:00:00+00:00",
                },
            }  # fmt: skip
        return data

    def guild(self) -> dict[str, Any]:
        channels = [self.channel(each.id) for each in self.channels.values() if each.guild and each.type == 0]
        threads = [self.channel(each.id) for each in self.channels.values() if each.type == 11 and not each.deleted]
        role = {
            "id": str(GUILD), "name": "@everyone", "color": 0, "hoist": False, "position": 0, "managed": False,
            "permissions": str(MEMBER_PERMISSIONS), "mentionable": False, "flags": 0, "icon": None,
            "unicode_emoji": None,
            "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        }  # fmt: skip
        other = role | {"id": str(ROLE), "name": "testers", "position": 1}
        return {
            "id": str(GUILD), "name": "guild", "icon": None, "splash": None, "owner_id": str(OWNER), "region": "x",
            "afk_channel_id": None, "afk_timeout": 300, "verification_level": 0, "default_message_notifications": 0,
            "explicit_content_filter": 0, "roles": [role, other], "emojis": [], "features": [], "mfa_level": 0,
            "application_id": None, "system_channel_id": None, "system_channel_flags": 0, "rules_channel_id": None,
            "vanity_url_code": None, "description": None, "banner": None, "premium_tier": 0,
            "preferred_locale": "en-US",
            "public_updates_channel_id": None, "nsfw_level": 0, "stickers": [], "premium_progress_bar_enabled": False,
            "joined_at": "2026-01-01T00:00:00+00:00", "large": False, "unavailable": False, "member_count": 5,
            "voice_states": [], "members": [self.member(APPLICATION) | {"user": self.user(APPLICATION)}],
            "channels": channels, "threads": threads, "presences": [], "stage_instances": [],
            "guild_scheduled_events": [], "soundboard_sounds": [],
        }  # fmt: skip

    def message(self, message: Message, private_content: bool = False) -> dict[str, Any]:
        channel = self.channels[message.channel]
        mentioned = [int(found) for found in re.findall(r"<@!?(\d+)>", message.content)]
        reference = self.messages.get(message.reference or 0)
        if reference is not None and reference.author not in mentioned:
            mentioned.append(reference.author)
        data: dict[str, Any] = {
            "id": str(message.id), "channel_id": str(message.channel), "author": self.user(message.author),
            "content": message.content, "timestamp": "2026-01-01T00:00:00+00:00", "edited_timestamp": None,
            "tts": False,
            "mention_everyone": False, "mentions": [self.user(each) for each in mentioned], "mention_roles": [],
            "attachments": message.attachments, "embeds": [], "pinned": False, "flags": message.flags,
            "type": 19 if message.reference else 0, "components": message.components,
        }  # fmt: skip
        if message.nonce:
            data["nonce"] = message.nonce
        if channel.guild is not None:
            data["guild_id"] = str(channel.guild)
            data["member"] = self.member(message.author)
        if message.reference:
            data["message_reference"] = {"message_id": str(message.reference), "channel_id": str(message.channel)}
            data["referenced_message"] = self.message(reference) if reference else None
        if private_content and channel.guild is not None and APPLICATION not in mentioned:
            data |= {"content": "", "attachments": [], "components": []}
        return data

    # What people and bots do

    def channel_of(self, channel_id: int, write: bool = False) -> Channel:
        channel = self.channels.get(channel_id)
        if channel is None or channel.deleted:
            raise RejectedError(404, 10003, "Unknown Channel")
        if write and not channel.writable:
            raise RejectedError(403, 50013, "Missing Permissions")
        return channel

    def message_of(self, channel_id: int, message_id: int) -> Message:
        message = self.messages.get(message_id)
        if message is None or message.channel != channel_id:
            raise RejectedError(404, 10008, "Unknown Message")
        return message

    def check(self, payload: dict[str, Any], files: int, old: Message | None = None) -> None:
        """Refuse what the API refuses."""
        content = payload.get("content") or ""
        if utf16_units(content) > LIMIT_CHARS:
            raise RejectedError(400, 50035, "Must be 2000 or fewer in length.")
        kept = old.content if old and "content" not in payload else ""
        if not content and not kept and not files and not payload.get("components") and not payload.get("embeds"):
            raise RejectedError(400, 50006, "Cannot send an empty message")
        rows = payload.get("components") or []
        ids = [item.get("custom_id") for row in rows for item in row["components"]]
        if len(rows) > 5 or any(len(row["components"]) > 5 for row in rows) or len(ids) != len(set(ids)):
            raise RejectedError(400, 50035, "Invalid components")
        if any(len(each or "") > 100 for each in ids) or len(str(payload.get("nonce") or "")) > 25:
            raise RejectedError(400, 50035, "Must be 100 or fewer in length.")

    def note_pings(self, message: Message, allowed: dict[str, Any] | None) -> None:
        """Who would get a notification of a message of the bot."""
        parse = {"everyone", "roles", "users"} if allowed is None else set(allowed.get("parse", []))
        text = message.content
        if "everyone" in parse and re.search(r"@(everyone|here)", text):
            self.pings.append((message.id, "everyone"))
        if "users" in parse and re.search(r"<@!?\d+>", text):
            self.pings.append((message.id, "users"))
        if "roles" in parse and re.search(r"<@&\d+>", text):
            self.pings.append((message.id, "roles"))
        if message.reference and (allowed is None or allowed.get("replied_user")):
            self.pings.append((message.id, "replied"))
