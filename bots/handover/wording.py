"""What people read about a hand-over; what customers read is in their own language, English or Chinese."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from bots import answers
from bots.handover.tickets import Draft, Ticket

_WAITING = {
    "en": "A person will take over here. You are number {position} in line. Just go on writing: they read it.",
    "zh": "人工客服将为您服务，您排在第 {position} 位。您可以继续留言，客服会看到。",
}
_CLOSED = {
    "en": "A person will take over here, from {when} on: nobody is there before. Just go on writing: they read it.",
    "zh": "人工客服将从 {when} 起为您服务，此前无人值班。您可以继续留言，客服会看到。",
}
_MOVED = {"en": "You are number {position} in line now.", "zh": "您现在排在第 {position} 位。"}
_TAKEN = {"en": "{name} has taken over and reads along.", "zh": "{name} 已接手，正在为您服务。"}
_RETURNED = {"en": "Back to the machine: ask me again.", "zh": "人工服务已结束，您可以继续向我提问。"}
_RESOLVED = {
    "en": "{name} has closed this. If it is not solved, just ask again.",
    "zh": "{name} 已处理完毕。如未解决，请再次提问。",
}

_UNREACHABLE = {
    "en": "The team cannot be reached here at the moment, so nobody takes over. Please tell an administrator.",
    "zh": "目前无法联系到人工客服，请告知管理员。",
}

STATES = {"waiting": "waiting", "taken": "taken", "returned": "returned to the bot", "resolved": "resolved"}
REASONS = {
    "asked": "asked for a person",
    "angry": "sounds angry",
    "unsure": "two questions in a row without an answer",
}
NO_TEAM = "There is no team to hand over to here: an administrator can name its channel in the configuration."
OPEN_ALREADY = "A person has been called already."
CALLED = "A person has been called; see the message here."
THANKS = "Thank you, that is noted."
GONE = "This ticket is closed, or belongs to somebody else."
NOT_A_MODERATOR = "Only a moderator can decide this."
NOT_ENOUGH = "Nothing was answered in the thread, so there is nothing to learn from it."
UNDELIVERABLE = "⚠ This could not be delivered: the customer's place is gone."
HANDED_ON = "A person reads this; they answer here."

_TURN_CHARS = 300
_TRANSCRIPT_CHARS = 1_200


def to_customer(words: str, question: str, **fields: object) -> str:
    """Something said to a customer, in the language of what they asked."""
    said = _SAID[words]
    return said["zh" if answers.is_chinese(question) else "en"].format(**fields)


def waits(ticket: Ticket, position: int, opening: datetime | None) -> str:
    """That a person comes, and when."""
    if opening is None:
        return to_customer("waiting", ticket.question, position=position)
    return to_customer("closed", ticket.question, when=opening.strftime("%Y-%m-%d %H:%M %Z"))


def card(ticket: Ticket) -> str:
    """The ticket's message in the team's channel."""
    by = f" by {answers.inert(ticket.taken_by)}" if ticket.taken_by else ""
    return f"**Ticket {ticket.ticket_id}**: {STATES[ticket.state]}{by}\n{ticket.summary}"


def summary(question: str, reason: str, turns: Sequence[tuple[str, str | None]]) -> str:
    """What the team reads first: why, the last question, and how much went before."""
    shown = answers.inert(_short(question))
    if not turns:
        return f"Why: {reason}\nAsked: {shown}"
    last = answers.inert(_short(turns[-1][1] or "-"))
    return f"Why: {reason}\nAsked: {shown}\nBefore: {len(turns)} questions, last answered with: {last}"


def transcript(turns: Sequence[tuple[str, str | None]]) -> str:
    """What was said so far, the latest in any case."""
    parts = [
        f"> {answers.inert(_short(question))}\n{answers.inert(_short(answer or '(no answer)'))}"
        for question, answer in turns
    ]
    kept: list[str] = []
    left_chars = _TRANSCRIPT_CHARS
    for part in reversed(parts):
        left_chars -= len(part)
        if left_chars < 0 and kept:
            break
        kept.insert(0, part)
    return "**So far**\n" + "\n".join(kept) if kept else ""


def draft(made: Draft) -> str:
    """A draft for a moderator."""
    often = f", said {made.times} times" if made.times > 1 else ""
    return f"**Draft {made.draft_id}**{often}\nQ: {answers.inert(made.question)}\nA: {answers.inert(made.answer)}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TURN_CHARS else line[: _TURN_CHARS - 1] + "…"


_SAID = {
    "waiting": _WAITING,
    "closed": _CLOSED,
    "moved": _MOVED,
    "taken": _TAKEN,
    "returned": _RETURNED,
    "resolved": _RESOLVED,
    "unreachable": _UNREACHABLE,
}
