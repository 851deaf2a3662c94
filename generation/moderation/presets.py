"""How strict a tenant is that has said nothing but a word: thresholds and actions by category.

Thresholds of the model categories are the default models' own, calibrated on dialogue; ``benchmarks/moderation.py``
measures them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from generation.moderation.types import Action, Category

Strictness = Literal["relaxed", "balanced", "strict"]


class Setting(NamedTuple):
    """From which score on which action is taken."""

    threshold: float
    action: Action


_BALANCED: dict[Category, Setting] = {
    Category.BLOCKED_WORDS: Setting(0.5, Action.REFUSE),
    Category.TOXICITY: Setting(0.95, Action.REFUSE),
    Category.PROFANITY: Setting(0.8, Action.REFUSE),
    Category.INSULT: Setting(0.8, Action.REFUSE),
    Category.HATE: Setting(0.5, Action.REFUSE),
    Category.THREAT: Setting(0.4, Action.REFUSE),
    Category.VIOLENCE: Setting(0.8, Action.REFUSE),
    Category.SELF_HARM: Setting(0.5, Action.ESCALATE),
    Category.SEXUAL: Setting(0.85, Action.REFUSE),
    Category.SUGGESTIVE: Setting(0.9, Action.BLUR),
    Category.ILLEGAL: Setting(0.8, Action.REFUSE),
    Category.INJECTION: Setting(0.5, Action.REFUSE),
    Category.PERSONAL_DATA: Setting(0.5, Action.MASK),
    Category.SECRETS: Setting(0.5, Action.MASK),
    Category.LINKS: Setting(0.5, Action.ALLOW),
    Category.LENGTH: Setting(0.5, Action.REFUSE),
    Category.ATTACHMENTS: Setting(0.5, Action.REFUSE),
    Category.MINORS: Setting(0.5, Action.ESCALATE),
    Category.MASS_HARM: Setting(0.5, Action.ESCALATE),
}

_RELAXED: dict[Category, Setting] = {
    **_BALANCED,
    Category.TOXICITY: Setting(0.98, Action.WARN),
    Category.PROFANITY: Setting(0.95, Action.ALLOW),
    Category.INSULT: Setting(0.9, Action.WARN),
    Category.HATE: Setting(0.6, Action.REFUSE),
    Category.THREAT: Setting(0.5, Action.REFUSE),
    Category.VIOLENCE: Setting(0.9, Action.WARN),
    Category.SEXUAL: Setting(0.9, Action.REFUSE),
    Category.SUGGESTIVE: Setting(0.95, Action.ALLOW),
    Category.INJECTION: Setting(0.7, Action.WARN),
    Category.PERSONAL_DATA: Setting(0.5, Action.ALLOW),
}

_STRICT: dict[Category, Setting] = {
    **_BALANCED,
    Category.TOXICITY: Setting(0.85, Action.REFUSE),
    Category.PROFANITY: Setting(0.6, Action.REFUSE),
    Category.INSULT: Setting(0.65, Action.REFUSE),
    Category.HATE: Setting(0.35, Action.REFUSE),
    Category.THREAT: Setting(0.3, Action.REFUSE),
    Category.VIOLENCE: Setting(0.6, Action.REFUSE),
    Category.SEXUAL: Setting(0.6, Action.REFUSE),
    Category.SUGGESTIVE: Setting(0.75, Action.REFUSE),
    Category.ILLEGAL: Setting(0.6, Action.REFUSE),
    Category.INJECTION: Setting(0.35, Action.REFUSE),
    Category.LINKS: Setting(0.5, Action.REFUSE),
}

PRESETS: dict[Strictness, dict[Category, Setting]] = {
    "relaxed": _RELAXED,
    "balanced": _BALANCED,
    "strict": _STRICT,
}

#: What is different in a channel that its platform marks NSFW, whatever the preset.
NSFW_CHANNEL: dict[Category, Setting] = {
    Category.TOXICITY: Setting(0.99, Action.WARN),
    Category.PROFANITY: Setting(0.99, Action.ALLOW),
    Category.SEXUAL: Setting(0.85, Action.BLUR),
    Category.SUGGESTIVE: Setting(0.9, Action.ALLOW),
}
