"""What was measured before and after, whether it is better, and how a person reads it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

#: With fewer held-out answers chance decides.
FEWEST_HELD_OUT = 5
#: What answers may lose in a figure before it counts: below this, one answer more or less decides.
_SLACK = {"bleu": 1.0, "rouge_l": 0.01, "exact": 0.0, "semantic": 0.02}


@dataclass(frozen=True, slots=True)
class Figures:
    """How well held-out answers are given.

    Args:
        perplexity: Of the approved answers, by token; lower is better.
        bleu: Corpus BLEU of greedy answers, 0 to 100 (sacrebleu).
        rouge_l: Mean F-measure of the longest common subsequence, 0 to 1.
        exact: Share of answers that are the approved one but for case, spaces and punctuation.
        semantic: Share of answers whose sentence vector is as close to the approved one's as a paraphrase's; None
            where no sentence encoder is installed.
        similarity: Mean cosine of these vectors; None likewise.
    """

    perplexity: float
    bleu: float
    rouge_l: float
    exact: float
    semantic: float | None
    similarity: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one training.

    Args:
        before: Of the model as it answers now: alone, or with the adapter that is promoted.
        after: With the new adapter.
        against: Id of that adapter; None for the model alone.
        train_examples: How many dialogues were trained on.
        held_out_examples: And how many were held out.
        steps: Of training.
        seconds: Of training.
        loss: Mean loss by token of the last epoch.
    """

    before: Figures
    after: Figures
    against: str | None
    train_examples: int
    held_out_examples: int
    steps: int
    seconds: float
    loss: float

    def reasons_against(self) -> list[str]:
        """Why the new adapter is not to be promoted; empty where it is better."""
        if self.held_out_examples < FEWEST_HELD_OUT:
            return [f"{self.held_out_examples} held-out answers are too few to tell; {FEWEST_HELD_OUT} are needed"]
        before, after = self.before, self.after
        if not math.isfinite(after.perplexity):
            return ["its perplexity is not a number"]
        reasons = []
        if after.perplexity >= before.perplexity:
            reasons.append(f"perplexity does not fall: {before.perplexity:.2f} to {after.perplexity:.2f}")
        for name, slack in _SLACK.items():
            was, now = getattr(before, name), getattr(after, name)
            if was is not None and now is not None and now < was - slack:
                reasons.append(f"{_NAMES[name]} falls: {was:.2f} to {now:.2f}")
        return reasons

    def to_json(self) -> dict[str, Any]:
        """As plain data, the verdict included."""
        return {**asdict(self), "reasons_against": self.reasons_against()}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Report:
        """Read what ``to_json`` has written."""
        fields = {name: told[name] for name in cls.__slots__}
        return cls(**{**fields, "before": Figures(**told["before"]), "after": Figures(**told["after"])})

    def table(self) -> str:
        """For a terminal."""
        rows = [f"{'held-out answers':<22}{'before':>10}{'after':>10}"]
        for name in Figures.__slots__:
            was, now = getattr(self.before, name), getattr(self.after, name)
            if was is not None and now is not None:
                rows.append(f"{_NAMES[name]:<22}{_number(was)}{_number(now)}")
        return "\n".join(rows)


def _number(value: float) -> str:
    return f"{value:>10.3f}" if abs(value) < 1e5 else f"{value:>10.1e}"


_NAMES = {
    "perplexity": "perplexity",
    "bleu": "BLEU",
    "rouge_l": "ROUGE-L",
    "exact": "exact match",
    "semantic": "semantic match",
    "similarity": "mean similarity",
}
