"""Refusals that something can be done about: an appeal, or a smaller request that fits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from workers.errors import RefusedError

if TYPE_CHECKING:
    from bots.image_prompt import ImagePrompt
    from bots.service import Prompt


class StoppedError(RefusedError):
    """Moderation said no before anything was stored, and the person who asked may appeal.

    Args:
        rule: The category.
        message: For the user.
    """

    code = "refused"

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(rule, math.inf, message)


class TooCostlyError(RefusedError):
    """A budget has too little left for a request, and enough for a smaller one.

    Args:
        refused: What the budget said.
        smaller: What would fit.
        told: What it is, in words: ``a shorter answer``.
    """

    def __init__(self, refused: RefusedError, smaller: Prompt | ImagePrompt, told: str) -> None:
        message = f"{refused} There is enough left for {told}."
        super().__init__(refused.limit, refused.retry_after_s, message, refused.left_gpu_s)
        self.smaller = smaller
        self.told = told
