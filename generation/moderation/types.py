"""What moderation decides and how a decision is told: categories, actions, verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Stage = Literal["prompt", "output", "preview", "image"]


class Category(StrEnum):
    """What a text or a picture may be objected to for."""

    BLOCKED_WORDS = "blocked_words"
    TOXICITY = "toxicity"
    PROFANITY = "profanity"
    INSULT = "insult"
    HATE = "hate"
    THREAT = "threat"
    VIOLENCE = "violence"
    SELF_HARM = "self_harm"
    SEXUAL = "sexual"
    SUGGESTIVE = "suggestive"
    ILLEGAL = "illegal"
    INJECTION = "injection"
    PERSONAL_DATA = "personal_data"
    SECRETS = "secrets"
    LINKS = "links"
    LENGTH = "length"
    ATTACHMENTS = "attachments"
    MINORS = "minors"
    MASS_HARM = "mass_harm"


#: Refused whatever a tenant's policy says, for everybody and everywhere.
ABSOLUTE: frozenset[Category] = frozenset({Category.MINORS, Category.MASS_HARM})

#: What users read. Names the category and nothing that tells how it was found.
TITLES: dict[Category, str] = {
    Category.BLOCKED_WORDS: "words that are not allowed here",
    Category.TOXICITY: "abusive language",
    Category.PROFANITY: "profanity",
    Category.INSULT: "insults",
    Category.HATE: "hate",
    Category.THREAT: "threats",
    Category.VIOLENCE: "violence",
    Category.SELF_HARM: "self-harm",
    Category.SEXUAL: "sexual content",
    Category.SUGGESTIVE: "suggestive content",
    Category.ILLEGAL: "illegal activity",
    Category.INJECTION: "instructions that try to override this assistant's own",
    Category.PERSONAL_DATA: "personal data",
    Category.SECRETS: "passwords, keys or other secrets",
    Category.LINKS: "links",
    Category.LENGTH: "length",
    Category.ATTACHMENTS: "this kind of attachment",
    Category.MINORS: "content that endangers minors",
    Category.MASS_HARM: "weapons of mass harm",
}


class Action(StrEnum):
    """What is done about it, from the mildest to the strictest."""

    ALLOW = "allow"
    WARN = "warn"
    MASK = "mask"
    BLUR = "blur"
    REFUSE = "refuse"
    ESCALATE = "escalate"

    @property
    def severity(self) -> int:
        """Its place in the order; a decision takes the strictest of its verdicts' actions."""
        return _SEVERITY[self]

    @property
    def stops(self) -> bool:
        """Whether nothing is shown."""
        return self in (Action.REFUSE, Action.ESCALATE)


_SEVERITY = {action: number for number, action in enumerate(Action)}


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text, in characters, and what is shown instead when it is masked."""

    start: int
    end: int
    mask: str = "***"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule or a model saw, before any policy looks at it.

    Args:
        category: What it is.
        score: How sure, 0 to 1; rules that match are 1.
        decided_by: ``rule:<name>`` or ``model:<name>``.
        version: Of the rule set or the model.
        spans: Where, if that is known.
        threshold: What the source itself calls certain; None leaves it to the policy.
        action: What a word list's owner wants done, in place of the category's action.
    """

    category: Category
    score: float
    decided_by: str
    version: str
    spans: tuple[Span, ...] = ()
    threshold: float | None = None
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy makes of a finding.

    Args:
        category: What it is.
        score: How sure, 0 to 1.
        threshold: From which score on the action is taken.
        action: What is done, ``allow`` below the threshold. In shadow mode what would be done.
        decided_by: ``rule:<name>`` or ``model:<name>``.
        version: Of the rule set or the model.
        shadow: The action is recorded and not taken.
        spans: What is hidden when the action is ``mask``.
    """

    category: Category
    score: float
    threshold: float
    action: Action
    decided_by: str
    version: str
    shadow: bool = False
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """Everything that was found in one text or picture, and what follows from it.

    Args:
        stage: Where on a request's way it was taken.
        verdicts: One for each finding, also those below their threshold.
    """

    stage: Stage
    verdicts: tuple[Verdict, ...] = ()

    @property
    def action(self) -> Action:
        """The strictest action that is taken."""
        taken = (verdict.action for verdict in self.verdicts if not verdict.shadow)
        return max(taken, key=lambda action: action.severity, default=Action.ALLOW)

    @property
    def decisive(self) -> Verdict | None:
        """The verdict that is recorded: the strictest taken, then the strictest in shadow, then the closest miss."""

        def weight(verdict: Verdict) -> tuple[int, int, float]:
            margin = verdict.score - verdict.threshold
            return (0 if verdict.shadow else verdict.action.severity), verdict.action.severity, margin

        return max(self.verdicts, key=weight, default=None)

    def masked(self, text: str) -> str:
        """The text with everything hidden that is to be masked; a verdict without a place hides all of it."""
        spans: list[Span] = []
        for verdict in self.verdicts:
            if verdict.shadow or verdict.action not in (Action.MASK, Action.BLUR):
                continue
            if not verdict.spans:
                return "***"
            spans += verdict.spans
        return mask(text, spans)


def mask(text: str, spans: Iterable[Span]) -> str:
    """Replace parts of a text; where parts overlap the first one's mask stands for all of them."""
    pieces: list[str] = []
    at = 0
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if span.start < at:
            if span.end > at:
                at = span.end
            continue
        pieces += (text[at : span.start], span.mask)
        at = span.end
    return "".join((*pieces, text[at:]))
