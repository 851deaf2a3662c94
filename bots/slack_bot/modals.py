"""Modals: to write or edit an image prompt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bots.slack_bot.blocks import Block, context

IMAGE_MODAL = "palaver_image"
PROMPT_BLOCK = "prompt"
_INPUT = "text"
#: The most that the platform's text fields take.
MOST_CHARS = 3_000


@dataclass(frozen=True, slots=True)
class ImageForm:
    """Where the pictures of a modal go; travels in it.

    Attributes:
        channel: Likewise a message's.
        thread: Nothing for the channel itself.
        base: The job whose prompt is edited, if any.
        asker: Who opened it, by name.
        picture: Address of the message's picture to begin from, if it has one; only the platform's own are fetched.
        picture_type: Its media type, as the platform says.
    """

    channel: str
    thread: str = ""
    base: str = ""
    asker: str = ""
    picture: str = ""
    picture_type: str = ""

    @property
    def file(self) -> dict[str, Any]:
        """The picture, as the platform describes files."""
        return {"url_private_download": self.picture, "mimetype": self.picture_type}

    def view(self, text: str) -> dict[str, Any]:
        """The modal with a prompt to begin with."""
        element: Block = {
            "type": "plain_text_input",
            "action_id": _INPUT,
            "multiline": True,
            "max_length": MOST_CHARS,
            "initial_value": text[:MOST_CHARS],
        }
        return {
            "type": "modal",
            "callback_id": IMAGE_MODAL,
            "private_metadata": json.dumps({name: getattr(self, name) for name in self.__slots__}),
            "title": {"type": "plain_text", "text": "Imagine"},
            "submit": {"type": "plain_text", "text": "Draw"},
            "close": {"type": "plain_text", "text": "Cancel"},
            "blocks": [
                {
                    "type": "input",
                    "block_id": PROMPT_BLOCK,
                    "label": {"type": "plain_text", "text": "What the pictures show"},
                    "element": element,
                },
                *([context("The picture of the message is what the drawing begins from.")] if self.picture else []),
                context(
                    "Flags: `--ar 16:9` `--n 4` `--seed 7` `--steps 20` `--style name` `--model name` `--guidance 5` "
                    "`--negative …`"
                ),
            ],
        }

    @classmethod
    def of(cls, view: dict[str, Any]) -> ImageForm:
        """Read it from a submitted modal."""
        known = json.loads(view.get("private_metadata") or "{}")
        return cls(**{name: str(known.get(name, "")) for name in cls.__slots__})


def text_of(view: dict[str, Any], block: str, element: str = _INPUT) -> str:
    """What was written into a field of a submitted modal."""
    state = view.get("state", {}).get("values", {})
    return str(state.get(block, {}).get(element, {}).get("value") or "")
