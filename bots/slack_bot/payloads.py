"""What the platform sends, read into what this front-end acts on."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from bots.slack_bot import markup
from bots.slack_bot.workspaces import Workspace

#: Messages that people write; all other subtypes are edits, joins and other programs' messages.
_WRITTEN = frozenset({None, "file_share", "me_message", "thread_broadcast"})
_OF_THE_PLATFORM = frozenset({"USLACKBOT"})


@dataclass(frozen=True, slots=True)
class Heard:
    """A message that a person has written.

    Attributes:
        workspace: Where.
        channel: Channel or direct message.
        user: Who.
        ts: The message.
        thread: Message under which it stands; nothing if it stands in the channel.
        text: As a person reads it, without the mention of the bot.
        direct: Whether only this person and the bot are there.
        mentioned: Whether the bot is mentioned.
        to_others: Whether it begins by mentioning somebody else.
        files: As the platform describes them.
    """

    workspace: Workspace
    channel: str
    user: str
    ts: str
    thread: str
    text: str
    direct: bool
    mentioned: bool
    to_others: bool
    files: list[dict[str, Any]] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The same for the same message, whichever event tells of it and however often."""
        return f"{self.channel}-{identifier(self.ts)}"

    @property
    def root(self) -> str:
        """The message under which an answer stands."""
        return self.thread or self.ts

    @property
    def conversation(self) -> str:
        """Name of the conversation of that thread."""
        return conversation_of(self.channel, self.root)


def heard(event: dict[str, Any], workspace: Workspace) -> Heard | None:
    """Read a ``message`` or ``app_mention`` event; None if no person wrote it."""
    user, channel, ts = (str(event.get(name) or "") for name in ("user", "channel", "ts"))
    by_program = event.get("bot_id") or event.get("app_id") or event.get("bot_profile")
    if by_program or event.get("subtype") not in _WRITTEN or event.get("hidden"):
        return None
    if not (user and channel and ts) or user == workspace.bot_user or user in _OF_THE_PLATFORM:
        return None
    raw = str(event.get("text") or "")
    first = re.match(r"\s*<@([UW][A-Z0-9]+)", raw)
    return Heard(
        workspace=workspace,
        channel=channel,
        user=user,
        ts=ts,
        thread=str(event.get("thread_ts") or ""),
        text=markup.plain(raw, workspace.bot_user),
        direct=event.get("channel_type") == "im" or channel.startswith("D"),
        mentioned=event.get("type") == "app_mention" or markup.mentions(raw, workspace.bot_user),
        to_others=bool(first and first[1] != workspace.bot_user),
        files=[each for each in event.get("files") or [] if isinstance(each, dict)],
    )


@dataclass(frozen=True, slots=True)
class Command:
    """A slash command.

    Attributes:
        name: With its slash.
        text: What was written behind it, as a person reads it.
        asker: The person's name, for others to read.
        trigger_id: Opens a view, for three seconds.
        response_url: Five private or public answers, for half an hour.
    """

    workspace: Workspace
    name: str
    text: str
    channel: str
    user: str
    asker: str
    trigger_id: str
    response_url: str

    @property
    def key(self) -> str:
        """The same for the same command."""
        return f"c-{digest(self.trigger_id)}"

    @property
    def direct(self) -> bool:
        """Whether only this person and the bot are there."""
        return self.channel.startswith("D")

    @property
    def conversation(self) -> str:
        """Name of the conversation that it begins."""
        return f"{self.channel}-{self.key}"


def command(body: dict[str, Any], workspace: Workspace) -> Command:
    """Read a slash command."""
    return Command(
        workspace=workspace,
        name=str(body.get("command", "")),
        text=markup.plain(str(body.get("text") or ""), workspace.bot_user),
        channel=str(body.get("channel_id", "")),
        user=str(body.get("user_id", "")),
        asker=str(body.get("user_name") or ""),
        trigger_id=str(body.get("trigger_id", "")),
        response_url=str(body.get("response_url", "")),
    )


@dataclass(frozen=True, slots=True)
class Press:
    """A button was pressed.

    Attributes:
        action_id: Which.
        value: What it carries.
        message: Under which message, nothing in views.
        thread: In which thread, if any.
        view_id: In which view, if any.
        files: Pictures that the message shows.
    """

    workspace: Workspace
    action_id: str
    value: str
    channel: str
    user: str
    asker: str
    message: str
    thread: str
    trigger_id: str
    response_url: str
    view_id: str
    files: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The same for the same press."""
        return f"b-{digest(self.trigger_id)}"


def press(body: dict[str, Any], workspace: Workspace) -> Press:
    """Read a button's press."""
    action, container = body["actions"][0], body.get("container") or {}
    message = body.get("message") or {}
    return Press(
        workspace=workspace,
        action_id=str(action.get("action_id", "")),
        value=str(action.get("value") or ""),
        channel=str((body.get("channel") or {}).get("id") or container.get("channel_id") or ""),
        user=str(body["user"]["id"]),
        asker=str(body["user"].get("username") or body["user"].get("name") or ""),
        message=str(container.get("message_ts") or ""),
        thread=str(message.get("thread_ts") or container.get("thread_ts") or ""),
        trigger_id=str(body.get("trigger_id", "")),
        response_url=str(body.get("response_url", "")),
        view_id=str((body.get("view") or {}).get("id", "")),
        files=tuple(str(each["slack_file"]["id"]) for each in message.get("blocks", []) if each.get("slack_file")),
    )


def conversation_of(channel: str, thread: str) -> str:
    """Name of the conversation of a thread."""
    return f"{channel}-{identifier(thread)}"


def identifier(text: str) -> str:
    """A platform's id in the form that identifiers allow."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")


def digest(text: str) -> str:
    """A short name for something that happened once."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def place_of(body: dict[str, Any]) -> tuple[str | None, str | None]:
    """Team and organization that a payload comes from.

    Where the bot is installed in a whole organization, an event names the team it happened in beside the authorization.
    """
    team = body.get("team_id") or (body.get("team") or {}).get("id") or (body.get("user") or {}).get("team_id")
    enterprise = body.get("enterprise_id") or (body.get("enterprise") or {}).get("id")
    return team, enterprise
