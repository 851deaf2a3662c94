"""The moderation that needs no model, as a rule of ``bots.service``: refuses, or masks, before anything is stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bots.image_prompt import ImagePrompt
from bots.service import AnyPrompt, Refusal, Rule
from generation.moderation.decided import Decided
from generation.moderation.policy import EffectivePolicy, default_policy
from generation.moderation.refusals import refusal
from generation.moderation.rules import check_text
from generation.moderation.types import Action, Decision, Verdict
from generation.types import Origin
from workers.metrics import VERDICTS

if TYPE_CHECKING:
    from bots.settings import Settings
    from generation.moderation.record import NoRecord, Record

Recorder = Callable[[Sequence[Decided]], None]


def rules_for(policy: EffectivePolicy, record: Recorder = lambda _: None) -> Rule:
    """The rules stage for ``ChatService``.

    Args:
        policy: What holds for prompts that bring no policy of their tenant.
        record: Told what was acted upon; what is let through is recorded by the engine process.

    Returns:
        A rule that refuses, or returns the prompt with what its policy hides masked.
    """

    def rule(prompt: AnyPrompt) -> Refusal | AnyPrompt | None:
        own = prompt.policy or policy
        texts = [prompt.text, prompt.negative_text] if isinstance(prompt, ImagePrompt) else [prompt.text]
        decisions = [check_text(text, own) for text in texts]
        for found in (verdict for decision in decisions for verdict in decision.verdicts if _acts(verdict)):
            VERDICTS.labels(found.category.value, found.action.value).inc()
        acted = [pair for pair in zip(texts, decisions, strict=True) if _found(pair[1])]
        if acted:
            origin = Origin(prompt.job_id, prompt.tenant, prompt.user, own)
            record([Decided(origin, decision, text, own) for text, decision in acted])
        for decision in decisions:
            if decision.action.stops:
                verdict = decision.decisive
                return Refusal(verdict.category.value if verdict else "moderation", refusal(decision, own))
        if not any(decision.action in (Action.MASK, Action.BLUR) for decision in decisions):
            return None
        masked = [decision.masked(text) for text, decision in zip(texts, decisions, strict=True)]
        if isinstance(prompt, ImagePrompt):
            return replace(prompt, text=masked[0], negative_text=masked[1])
        return replace(prompt, text=masked[0])

    return rule


def moderation_of(settings: Settings, record: LateRecord) -> Rule:
    """The rules stage as the operator has set it up.

    Args:
        settings: How strict.
        record: Where decisions are kept.
    """
    return rules_for(default_policy(settings.moderation.strictness), record.decided)


class LateRecord:
    """The record of decisions, opened when there is the first one to write: starting stays fast.

    Args:
        settings: Where it is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._record: Record | NoRecord | None = None

    def decided(self, decided: Sequence[Decided]) -> None:
        """Write decisions soon.

        Raises:
            GenerationError: The record cannot be opened.
        """
        self.open().decided(decided)

    def forget_user(self, tenant: str | None, user: str) -> int:
        """Delete a user's kept texts and appeals, and take the user out of the decisions; see ``Record.forget_user``.

        Raises:
            GenerationError: The record cannot be opened.
        """
        return self.open().forget_user(tenant, user)

    def open(self) -> Record | NoRecord:
        """The record itself.

        Raises:
            GenerationError: It cannot be opened.
        """
        if self._record is None:
            from generation.moderation.config import ModerationConfig
            from generation.moderation.record import open_record  # a third of a second

            own = self._settings.moderation
            options = {
                "record_url": own.record_url.get_secret_value() if own.record_url else "",
                "secret": own.secret.get_secret_value() if own.secret else "",
                "data_dir": self._settings.data_dir,
            }
            self._record = open_record(ModerationConfig.from_options(options))
        return self._record


def _found(decision: Decision) -> bool:
    """Whether something was, or in shadow mode would have been, done."""
    return any(map(_acts, decision.verdicts))


def _acts(verdict: Verdict) -> bool:
    return verdict.action is not Action.ALLOW
