"""Both stages together, in the engine process: what is decided about prompts, sentences and pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from generation.errors import GenerationError, ModerationUnavailableError
from generation.moderation import rules
from generation.moderation.config import ModerationConfig
from generation.moderation.expressions import compiled_pattern
from generation.moderation.image import ImageClassifier, load_image_classifier
from generation.moderation.policy import EffectivePolicy
from generation.moderation.refusals import UNAVAILABLE
from generation.moderation.spelling import fold
from generation.moderation.text import TextClassifier, TextStage, load_text_stage
from generation.moderation.types import Category, Decision, Finding, Span, Stage

_LOG = logging.getLogger("palaver.moderation")

RELOAD_S = 30.0
#: A picture this likely to be sexual is refused for good where its prompt speaks of minors.
_SEXUAL_WITH_MINORS = 0.3
_MINORS = (
    r"\b(?:child|children|kids?|minors?|toddlers?|pre-?teens?|teen(?:ager)?s?|girls?|boys?|infants?|bab(?:y|ies)|school\w*"
    r"|lolis?|shotas?|young|little)\b|儿童|幼|女孩|男孩|少女|少年|萝莉|正太|学生"
)

Progress = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to decide about.

    Args:
        text: The text.
        policy: What its tenant wants.
        before: What was let through just before it: a word may begin there.
    """

    text: str
    policy: EffectivePolicy
    before: str = ""


class Moderator:
    """Decides; loads its models when it is made, and again from time to time where that failed.

    Args:
        config: Which models.
        progress: Told what is being loaded.
        images: Whether pictures are to be judged as well as texts.
        judges: Asked about texts beside the configured models.
        meanwhile: What has to go on while a guard model is asked.
    """

    def __init__(
        self,
        config: ModerationConfig,
        progress: Progress = lambda *_: None,
        *,
        images: bool = False,
        judges: Sequence[TextClassifier] = (),
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._judges = tuple(judges)
        self._meanwhile = meanwhile
        self._images = images
        self._text: TextStage | None = None
        self._classifier: ImageClassifier | None = None
        self._load_at = 0.0
        self._load(progress)

    def prompts(self, passages: Sequence[Passage], stage: Stage = "prompt") -> list[Decision]:
        """Decide about texts before any device time is spent on them.

        Raises:
            ModerationUnavailableError: The models are not there or have failed.
        """
        return self._decide(passages, stage)

    def sentences(self, passages: Sequence[Passage]) -> list[Decision]:
        """Decide about sentences of answers before they are shown.

        Raises:
            ModerationUnavailableError: The models are not there or have failed.
        """
        return self._decide(passages, "output")

    def pictures(
        self, pictures: Sequence[tuple[bytes, str, EffectivePolicy]], stage: Stage = "image"
    ) -> list[Decision]:
        """Decide about encoded pictures, each with its prompt and policy, before they leave.

        Raises:
            ModerationUnavailableError: The model is not there or has failed, or a picture cannot be decoded.
        """
        self._ensure()
        if self._classifier is None:
            return [Decision(stage) for _ in pictures]
        try:
            found = self._classifier.findings([picture for picture, _, _ in pictures])
        except Exception as error:  # whatever a model raises, nothing unmoderated leaves
            raise self._failed("image", error) from error
        return [
            policy.decide(stage, (*findings, *_with_minors(findings, prompt)))
            for (_, prompt, policy), findings in zip(pictures, found, strict=True)
        ]

    def _decide(self, passages: Sequence[Passage], stage: Stage) -> list[Decision]:
        text = self._ensure()
        texts = [passage.text for passage in passages]
        try:
            by_model = text.outputs(texts) if stage == "output" else text.inputs(texts)
            by_rule = [_by_rule(passage, stage) for passage in passages]
        except Exception as error:  # whatever a filter raises, nothing unmoderated is shown
            raise self._failed("text", error) from error
        return [
            passage.policy.decide(stage, (*ruled, *modelled))
            for passage, ruled, modelled in zip(passages, by_rule, by_model, strict=True)
        ]

    def _ensure(self) -> TextStage:
        if self._text is None and time.monotonic() >= self._load_at:
            self._load(lambda *_: None)
        if self._text is None:
            raise ModerationUnavailableError(UNAVAILABLE)
        return self._text

    def _load(self, progress: Progress) -> None:
        self._load_at = time.monotonic() + RELOAD_S
        try:
            if self._images:
                self._classifier = load_image_classifier(self._config, progress)
            self._text = load_text_stage(self._config, progress, self._judges, self._meanwhile)
        except (GenerationError, OSError, RuntimeError, ImportError, ValueError, KeyError) as error:
            _LOG.error(
                "A moderation model cannot be loaded: %s Nothing is answered until it can; the next try is in %.0f s.",
                error,
                RELOAD_S,
            )

    def _failed(self, what: str, error: Exception) -> ModerationUnavailableError:
        _LOG.error("The %s moderation failed (%s); what it was to judge is withheld.", what, type(error).__name__)
        _LOG.debug("Moderation failed.", exc_info=error)
        return ModerationUnavailableError(UNAVAILABLE)


def _by_rule(passage: Passage, stage: Stage) -> list[Finding]:
    """What rules see in a passage, also where a word begins in what was let through before."""
    if not passage.before:
        return list(rules.findings(passage.text, passage.policy, stage))
    seam = len(passage.before)
    found: list[Finding] = []
    for finding in rules.findings(passage.before + passage.text, passage.policy, stage):
        spans = tuple(
            Span(max(0, span.start - seam), span.end - seam, span.mask) for span in finding.spans if span.end > seam
        )
        if spans or not finding.spans:
            found.append(
                Finding(
                    finding.category,
                    finding.score,
                    finding.decided_by,
                    finding.version,
                    spans,
                    finding.threshold,
                    finding.action,
                )
            )
    return found


def _with_minors(findings: Sequence[Finding], prompt: str) -> list[Finding]:
    sexual = max((finding for finding in findings if finding.category is Category.SEXUAL), key=_score, default=None)
    if sexual is None or sexual.score < _SEXUAL_WITH_MINORS:
        return []
    if compiled_pattern(_MINORS).search(fold(prompt).text) is None:
        return []
    return [Finding(Category.MINORS, 1.0, f"{sexual.decided_by}+rule:minors", sexual.version)]


def _score(finding: Finding) -> float:
    return finding.score
