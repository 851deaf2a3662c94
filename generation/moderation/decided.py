"""A decision together with whose request it was about: what the record is told."""

from __future__ import annotations

from dataclasses import dataclass

from generation.moderation.policy import EffectivePolicy
from generation.moderation.types import Decision
from generation.types import Origin


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, for the record.

    Args:
        origin: Whose request.
        decision: What was decided.
        text: What it was about; kept only where the tenant wants that.
        policy: What was decided by.
    """

    origin: Origin
    decision: Decision
    text: str
    policy: EffectivePolicy
