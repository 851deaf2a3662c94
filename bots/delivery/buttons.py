"""What the buttons under an answer are called, so that they work after a restart and a week later.

A button's id says everything that is needed to act on it: ``p:<action>:<job id>[:<index>]``, at most 100 characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

#: Discord's limit; Slack's is 255.
MAX_ID_CHARS = 100
#: Every id begins so; others' ids do not.
PREFIX = "p:"

Action = Literal[
    "stop", "vary", "reroll", "upscale", "more", "edit", "prompt", "delete", "appeal", "approve", "deny", "smaller",
    "helpful", "unhelpful", "human", "take", "giveback", "resolve", "accept", "amend", "reject"
]  # fmt: skip
#: Actions of ``bots.handover``; its buttons carry a ticket or a draft in place of a job.
SUPPORT: tuple[Action, ...] = (
    "helpful", "unhelpful", "human", "take", "giveback", "resolve", "accept", "amend", "reject"
)  # fmt: skip

_LABELS: dict[Action, str] = {
    "stop": "Stop",
    "vary": "Vary",
    "reroll": "Re-roll",
    "upscale": "Upscale",
    "more": "More like this",
    "edit": "Edit prompt",
    "prompt": "Show prompt",
    "delete": "Delete",
    "helpful": "Helpful",
    "unhelpful": "Not helpful",
    "human": "Talk to a person",
    "take": "Take",
    "giveback": "Return to bot",
    "resolve": "Resolve",
    "accept": "Approve",
    "amend": "Edit and approve",
    "reject": "Reject",
    "appeal": "Appeal",
    "approve": "Approve",
    "deny": "Deny",
    "smaller": "Take the smaller one",
}
_ID = re.compile(r"p:([a-z]{1,12}):([A-Za-z0-9_-]{1,96})(?::([0-9]))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Button:
    """One button.

    Attributes:
        action: What it does.
        job_id: To which job.
        index: To which of its pictures, from 0; None for the job as a whole.
    """

    action: Action
    job_id: str
    index: int | None = None

    @property
    def label(self) -> str:
        """What is written on it."""
        return _LABELS[self.action] + ("" if self.index is None else f" {self.index + 1}")

    @property
    def id(self) -> str:
        """Its id.

        Raises:
            ValueError: It would be longer than platforms allow, or could not be read again.
        """
        text = f"{PREFIX}{self.action}:{self.job_id}" + ("" if self.index is None else f":{self.index}")
        if len(text) > MAX_ID_CHARS or parse(text) != self:
            raise ValueError(f"no button id can be made for a job id of {len(self.job_id)} characters")
        return text


def parse(text: str) -> Button | None:
    """Read an id; None if it is not one of ours: it may come from anybody."""
    found = _ID.fullmatch(text) if len(text) <= MAX_ID_CHARS else None
    if not found:
        return None
    action, job_id, index = found.groups()
    for known in get_args(Action):
        if action == known:
            return Button(known, job_id, None if index is None else int(index))
    return None
