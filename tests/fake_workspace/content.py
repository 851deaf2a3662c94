"""Messages and views as the platform checks, keeps and shows them, and whom they would ping."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

MAX_BLOCKS = 50
MAX_VIEW_BLOCKS = 100
MAX_MARKDOWN = 12_000
MAX_UPDATE_TEXT = 4_000
MAX_POST_TEXT = 40_000

_PING = re.compile(
    r"<(!(?:channel|here|everyone)(?:\|[^>]*)?|!subteam\^[A-Z0-9]+(?:\|[^>]*)?|@[UW][A-Z0-9]+(?:\|[^>]*)?)>"
)
_NAME_PING = re.compile(r"(?<![\w.])@(channel|here|everyone)\b")


class ApiError(Exception):
    """An answer with ``ok: false``."""

    def __init__(self, error: str, **more: Any) -> None:
        super().__init__(error)
        self.error = error
        self.more = more


@dataclass(slots=True)
class Message:
    """One message, with everything it has been."""

    channel: str
    ts: str
    user: str
    text: str = ""
    blocks: list[dict[str, Any]] = field(default_factory=list)
    thread_ts: str | None = None
    bot_id: str | None = None
    team: str = ""
    metadata: dict[str, Any] | None = None
    files: list[dict[str, Any]] = field(default_factory=list)
    ephemeral_for: str | None = None
    deleted: bool = False
    streaming: bool = False
    stopped_by_user: bool = False
    stream_died: bool = False
    stream_began_s: float = 0.0
    revisions: list[str] = field(default_factory=list)
    edits: int = 0

    @property
    def body(self) -> str:
        """What a person reads: the blocks, or the text where there are none."""
        shown = [text for block in self.blocks for text in _texts(block) if block.get("type") != "actions"]
        return "\n".join(shown) if shown else self.text

    @property
    def buttons(self) -> dict[str, dict[str, Any]]:
        """Its buttons by action id."""
        found = {}
        for block in self.blocks:
            for element in [*block.get("elements", []), block.get("accessory") or {}]:
                if isinstance(element, dict) and element.get("action_id"):
                    found[element["action_id"]] = element
        return found

    def button(self, label: str) -> dict[str, Any]:
        """The button whose label contains this."""
        for element in self.buttons.values():
            if label.lower() in element.get("text", {}).get("text", "").lower():
                return element
        raise AssertionError(f"no button {label!r} among {[*self.buttons]}: {self.body[:200]}")

    def record(self) -> None:
        self.revisions.append(self.body)

    def public(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "type": "message",
            "ts": self.ts,
            "user": self.user,
            "text": self.text or self.body[:300],
        }
        for name in ("thread_ts", "bot_id", "metadata", "files", "blocks", "team"):
            if getattr(self, name):
                shown[name] = getattr(self, name)
        if self.bot_id:
            shown["app_id"] = "A0FAKE"
        return shown


def _texts(block: dict[str, Any]) -> list[str]:
    """All the text in a block, in reading order."""
    found = []
    for name in ("text", "title", "alt_text", "fallback"):
        value = block.get(name)
        if isinstance(value, str) and name == "text":
            found.append(value)
        elif isinstance(value, dict) and "text" in value:
            found.append(str(value["text"]))
    for name in ("fields", "elements"):
        found += [text for part in block.get(name, []) if isinstance(part, dict) for text in _texts(part)]
    return found


def pinged(text: str, blocks: list[dict[str, Any]], args: dict[str, Any]) -> list[str]:
    """Whom this would notify."""
    every = [text, *(part for block in blocks for part in _texts(block))]
    found = [match.group(1) for each in every for match in _PING.finditer(each)]
    if (
        args.get("link_names")
        or args.get("parse") == "full"
        or any(block.get("type") == "markdown" for block in blocks)
    ):
        # What Markdown makes of a bare @here is not documented: the careful reading is that it pings.
        found += [match.group(1) for each in every for match in _NAME_PING.finditer(each)]
    return found


def check_message(text: str, blocks: list[dict[str, Any]], max_text: int) -> None:
    if not text and not blocks:
        raise ApiError("no_text")
    if len(text) > max_text:
        raise ApiError("msg_too_long")
    check_blocks(blocks, MAX_BLOCKS)


def check_blocks(blocks: list[dict[str, Any]], most: int) -> None:
    if len(blocks) > most:
        raise ApiError("invalid_blocks", why="too many blocks")
    if sum(len(block.get("text", "")) for block in blocks if block.get("type") == "markdown") > MAX_MARKDOWN:
        raise ApiError("msg_blocks_too_long")
    ids = [block["block_id"] for block in blocks if block.get("block_id")]
    if len(ids) != len(set(ids)):
        raise ApiError("invalid_blocks", why="duplicate block_id")
    for block in blocks:
        _check_block(block)


def _check_block(block: dict[str, Any]) -> None:
    kind = block.get("type")
    if kind not in {"actions", "context", "divider", "header", "image", "input", "markdown", "section"}:
        raise ApiError("invalid_blocks", why=f"type {kind}")
    text = block.get("text")
    limits = {"section": 3000, "header": 150}
    if kind in limits:
        if kind == "section" and block.get("fields"):
            pass
        elif not isinstance(text, dict) or not 1 <= len(text.get("text", "")) <= limits[kind]:
            raise ApiError("invalid_blocks", why=f"text of {kind}")
    if kind == "markdown" and not isinstance(text, str):
        raise ApiError("invalid_blocks", why="markdown text")
    if kind == "image" and not block.get("alt_text"):
        raise ApiError("invalid_blocks", why="an image without alt_text")
    elements = block.get("elements", [])
    if kind == "actions" and not 1 <= len(elements) <= 25:
        raise ApiError("invalid_blocks", why="actions")
    if kind == "context" and not 1 <= len(elements) <= 10:
        raise ApiError("invalid_blocks", why="context")
    for element in elements:
        _check_element(element)


def _check_element(element: dict[str, Any]) -> None:
    if element.get("type") == "button":
        label = element.get("text", {}).get("text", "")
        if not 1 <= len(label) <= 75 or len(element.get("value", "")) > 2000:
            raise ApiError("invalid_blocks", why="button")
    if len(element.get("action_id", "")) > 255:
        raise ApiError("invalid_blocks", why="action_id")
    if element.get("type") in {"mrkdwn", "plain_text"} and not 1 <= len(element.get("text", "")) <= 3000:
        raise ApiError("invalid_blocks", why="text element")


def check_view(view: dict[str, Any]) -> None:
    if view.get("type") not in {"modal", "home"}:
        raise ApiError("invalid_arguments", why="type of the view")
    if view["type"] == "modal":
        _check_modal(view)
    if len(view.get("private_metadata", "")) > 3000 or len(view.get("callback_id", "")) > 255:
        raise ApiError("invalid_arguments", why="private_metadata or callback_id")
    check_blocks(view.get("blocks", []), MAX_VIEW_BLOCKS)
    for block in view.get("blocks", []):
        if block.get("type") == "input":
            element = block.get("element", {})
            if len(element.get("initial_value", "")) > element.get("max_length", 3000):
                raise ApiError("invalid_arguments", why="initial_value")
            if not 1 <= len(block.get("label", {}).get("text", "")) <= 2000:
                raise ApiError("invalid_arguments", why="label")


def _check_modal(view: dict[str, Any]) -> None:
    if not 1 <= len(view.get("title", {}).get("text", "")) <= 24:
        raise ApiError("invalid_arguments", why="title")
    if len(view.get("submit", {}).get("text", "x")) > 24 or len(view.get("close", {}).get("text", "x")) > 24:
        raise ApiError("invalid_arguments", why="submit or close")
    has_input = any(block.get("type") == "input" for block in view.get("blocks", []))
    if has_input and "submit" not in view:
        raise ApiError("invalid_arguments", why="an input without submit")


def new_ts(counter: list[int]) -> str:
    counter[0] += 1
    return f"{int(time.time())}.{counter[0]:06d}"
