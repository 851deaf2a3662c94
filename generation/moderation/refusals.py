"""What users are told: the category, and how to appeal; never what was matched or how close it was."""

from __future__ import annotations

from generation.moderation.policy import EffectivePolicy
from generation.moderation.types import ABSOLUTE, TITLES, Category, Decision, Stage

UNAVAILABLE = (
    "The safety check is not working at the moment, so nothing can be shown. Try again in a few minutes; "
    "if it stays like this, tell whoever runs this bot."
)

_SUBJECTS: dict[Stage, str] = {
    "prompt": "Your message",
    "output": "The answer",
    "preview": "The picture",
    "image": "The picture",
}
_APPEAL = "If you think that this is a mistake, you can appeal to this community's moderators."


def refusal(decision: Decision, policy: EffectivePolicy) -> str:
    """What the user of a refused request reads.

    Args:
        decision: One whose action stops.
        policy: Says how appeals work here.
    """
    verdict = decision.decisive
    category = verdict.category if verdict else Category.TOXICITY
    subject = _SUBJECTS[decision.stage]
    if category is Category.LENGTH:
        return f"{subject} is too long: at most {policy.max_prompt_chars:,} characters are accepted here."
    if category is Category.ATTACHMENTS:
        return f"This kind of attachment is not accepted here. Accepted are {', '.join(policy.attachments)}."
    told = f"{subject} was stopped (category: {TITLES[category]})."
    if category is Category.SELF_HARM:
        told += " If you are thinking about harming yourself, please talk to somebody you trust or a local helpline."
    if category in ABSOLUTE:
        return told
    return f"{told} {policy.appeals or _APPEAL}"


def appealable(decision: Decision) -> bool:
    """Whether moderators can be asked to look at a refusal; not where a limit or what is absolute decided."""
    verdict = decision.decisive
    return verdict is None or verdict.category not in {*ABSOLUTE, Category.LENGTH, Category.ATTACHMENTS}


def warning(decision: Decision) -> str:
    """What is added to an answer that is shown with a warning."""
    verdict = decision.decisive
    return f"\n\n⚠ This answer may contain {TITLES[verdict.category] if verdict else 'sensitive content'}."
