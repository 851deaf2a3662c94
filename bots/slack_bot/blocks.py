"""A view of an answer as the platform's blocks."""

from __future__ import annotations

from typing import Any

from bots.delivery import buttons
from bots.delivery.buttons import Button
from bots.slack_bot.markup import defused

Block = dict[str, Any]

#: Most characters of ``markdown`` in one message; what ``defused`` adds is counted by ``measure``.
MARKDOWN_LIMIT = 12_000
#: ``chat.update`` takes no more ``text``; it is what notifications and screen readers show.
_TEXT_LIMIT = 3_000
_ROW = 5
_SECTION_LIMIT = 3_000
_PLAIN_CHARS = 3_000
_STYLES = {"stop": "danger", "delete": "danger"}


def markdown(text: str) -> Block:
    """Untrusted Markdown."""
    return {"type": "markdown", "text": defused(text)}


def plain(text: str) -> list[Block]:
    """The same words as they were written, in as many sections as they need."""
    text = defused(text)
    shown = [text[at : at + _PLAIN_CHARS] for at in range(0, len(text), _PLAIN_CHARS)]
    return [{"type": "section", "text": {"type": "plain_text", "text": each, "emoji": False}} for each in shown]


def summary(text: str) -> str:
    """The plain text that goes beside blocks."""
    shown = defused(text.strip())
    return shown if len(shown) <= _TEXT_LIMIT else shown[: _TEXT_LIMIT - 1] + "…"


def section(mrkdwn: str, accessory: Block | None = None) -> Block:
    """Text of our own; untrusted parts in it must be ``escaped``."""
    block: Block = {"type": "section", "text": {"type": "mrkdwn", "text": mrkdwn[:_SECTION_LIMIT]}}
    return block | {"accessory": accessory} if accessory else block


def context(mrkdwn: str) -> Block:
    """A small grey line."""
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": mrkdwn[:_SECTION_LIMIT]}]}


def header(text: str) -> Block:
    """A heading."""
    return {"type": "header", "text": {"type": "plain_text", "text": text[:150]}}


def button(label: str, action_id: str, value: str = "", style: str | None = None) -> Block:
    """One button."""
    known: Block = {"type": "button", "text": {"type": "plain_text", "text": label[:75]}, "action_id": action_id}
    if value:
        known["value"] = value
    return known | {"style": style} if style else known


def rows(wanted: tuple[Button, ...]) -> list[Block]:
    """The buttons under an answer, five in a row."""
    elements = [button(each.label, each.id, style=_STYLES.get(each.action)) for each in wanted]
    return [{"type": "actions", "elements": elements[at : at + _ROW]} for at in range(0, len(elements), _ROW)]


def is_ours(action_id: str) -> bool:
    """Whether a button under an answer has been pressed."""
    return buttons.parse(action_id) is not None


def picture(file_id: str, alt: str) -> Block:
    """An uploaded picture with its description."""
    return {"type": "image", "slack_file": {"id": file_id}, "alt_text": alt[:2_000] or "A generated picture"}
