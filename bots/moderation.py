"""The moderation that needs no model, as a rule of ``bots.service``: refuses, or masks, before anything is stored."""

from __future__ import annotations

import atexit
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bots.image_prompt import ImagePrompt
from bots.service import AnyPrompt, Refusal, Rule
from generation.errors import GenerationError
from generation.moderation.decided import Decided
from generation.moderation.policy import EffectivePolicy, default_policy
from generation.moderation.refusals import appealable, refusal
from generation.moderation.rules import check_attachments, check_text
from generation.moderation.types import Action, Decision, Verdict
from generation.types import Origin
from workers.metrics import VERDICTS

if TYPE_CHECKING:
    from bots.settings import Settings
    from generation.moderation.record import NoRecord, Record

_LOG = logging.getLogger("palaver.moderation")

#: Decisions that wait for a record which cannot be opened; the oldest are lost first.
_MOST_PENDING = 1_000

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
        if prompt.attachments:  # they have names and no text of their own: what they say has become part of the prompt
            texts.append("")
            decisions.append(check_attachments(prompt.attachments, own))
        for found in (verdict for decision in decisions for verdict in decision.verdicts if _acts(verdict)):
            VERDICTS.labels(found.category.value, found.action.value).inc()
        acted = [pair for pair in zip(texts, decisions, strict=True) if _found(pair[1])]
        if acted:
            origin = Origin(prompt.job_id, prompt.tenant, prompt.user, own)
            record([Decided(origin, decision, text, own) for text, decision in acted])
        for decision in decisions:
            if decision.action.stops:
                verdict = decision.decisive
                category = verdict.category.value if verdict else "moderation"
                return Refusal(category, refusal(decision, own), appealable(decision))
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
        self._lock = threading.Lock()
        self._pending: deque[Sequence[Decided]] = deque(maxlen=_MOST_PENDING)

    def decided(self, decided: Sequence[Decided]) -> None:
        """Write decisions soon; never blocks, not even to open the record."""
        if self._record is not None:
            self._record.decided(decided)
        else:
            # No daemon: a command that ends with its refusal is to leave it on record.
            self._pending.append(decided)
            threading.Thread(target=self._open_quietly, name="moderation-opening").start()

    def _open_quietly(self) -> None:
        try:
            self.open()
        except GenerationError as error:
            _LOG.error("Moderation decisions are not recorded: %s", error)

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
        with self._lock:
            if self._record is None:
                self._record = self._opened()
                atexit.register(self._record.close)
            while self._pending:
                self._record.decided(self._pending.popleft())
            return self._record

    def _opened(self) -> Record | NoRecord:
        from generation.moderation.config import ModerationConfig
        from generation.moderation.record import open_record  # a third of a second

        own = self._settings.moderation
        options = {
            "record_url": own.record_url.get_secret_value() if own.record_url else "",
            "secret": own.secret.get_secret_value() if own.secret else "",
            "data_dir": self._settings.data_dir,
        }
        return open_record(ModerationConfig.from_options(options))


def _found(decision: Decision) -> bool:
    """Whether something was, or in shadow mode would have been, done."""
    return any(map(_acts, decision.verdicts))


def _acts(verdict: Verdict) -> bool:
    return verdict.action is not Action.ALLOW
