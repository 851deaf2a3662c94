"""Where an answer goes: what travels with a job in its reply handle, and is all that is known after a restart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workers.contract import ReplyTo

FRONT_END = "slack"
IMAGE = "image"
_QUESTION_CHARS = 1_000


@dataclass(frozen=True, slots=True)
class Target:
    """One place in one workspace.

    Attributes:
        team: The workspace.
        enterprise: Its organization, or nothing.
        channel: Channel or direct message.
        user: Who asked.
        thread: Message under which the answer stands; nothing for the channel itself.
        question: What a command asked, shown above its answer because nobody else has seen it; nothing otherwise.
        asker: Name of who asked, likewise.
        response_url: Of a command: another way of answering, for channels that the bot may not write in.
        made: When the command came, Unix seconds.
        title: What the agent's session is called.
        kind: ``image`` for pictures, which are shown in messages and have a stop button of ours.
    """

    team: str
    channel: str
    user: str
    enterprise: str = ""
    thread: str = ""
    question: str = ""
    asker: str = ""
    response_url: str = ""
    made: str = ""
    title: str = ""
    kind: str = ""

    def reply(self) -> ReplyTo:
        """The reply handle."""
        fields = {name: getattr(self, name) for name in self.__slots__ if getattr(self, name)}
        fields["question"] = self.question[:_QUESTION_CHARS]
        return ReplyTo(front_end=FRONT_END, handle={name: value for name, value in fields.items() if value})

    @property
    def place(self) -> tuple[str, str, str]:
        """What other answers in the same thread have in common with this one."""
        return self.team, self.channel, self.thread

    @property
    def made_s(self) -> float:
        """``made`` as a number; 0 if it is not known."""
        return float(self.made) if self.made.isdecimal() else 0.0

    @classmethod
    def of(cls, reply: ReplyTo) -> Target | None:
        """Read a reply handle; None if it is not one of this front-end's."""
        known: dict[str, Any] = {name: value for name, value in reply.handle.items() if name in cls.__slots__}
        if not all(known.get(name) for name in ("team", "channel", "user")):
            return None
        return cls(**known)
