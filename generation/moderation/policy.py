"""What one tenant wants moderated, and how that applies to one place and one person.

A ``Policy`` is what a tenant configures. ``Policy.at`` makes the ``EffectivePolicy`` of a request, which travels with
it: the engine process decides by what held when the request was admitted. Imports no model library.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from generation.moderation.presets import NSFW_CHANNEL, PRESETS, Setting, Strictness
from generation.moderation.types import ABSOLUTE, Action, Category, Decision, Finding, Stage, Verdict

POLICY_VERSION: Final = 1
MAX_WORDS = 5_000
MAX_PATTERNS = 200

Word = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
Label = Annotated[str, StringConstraints(max_length=40, strip_whitespace=True, pattern=r"^[^\x00-\x1f]*$")]
Role = Annotated[str, StringConstraints(min_length=1, max_length=80)]
#: Pictures, and text that a model can read: endings without the dot.
ACCEPTED_FILES: Final = (
    "png", "jpg", "jpeg", "webp", "gif",
    "txt", "md", "pdf", "csv", "tsv", "json", "yaml", "yml", "toml", "ini", "xml", "html", "css", "log",
    "py", "js", "ts", "c", "h", "cpp", "rs", "go", "java", "rb", "sh", "sql", "diff", "patch",
)  # fmt: skip
#: What may be below a threshold of an absolute category; a tenant may be stricter and not laxer.
_ABSOLUTE_THRESHOLD = 0.5


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CategoryRule(_Frozen):
    """What a tenant wants for one category; what it leaves out comes from the preset."""

    threshold: float | None = Field(default=None, ge=0, le=1)
    action: Action | None = None


class WordList(_Frozen):
    """Words and patterns that a tenant blocks.

    Attributes:
        name: For reports.
        words: Whole words or phrases in any spelling that evades; ``*`` at an end also matches inside words.
        patterns: RE2 expressions, matched against the text without invisible characters, ignoring case.
        allowed: Words and phrases that are never matched by this list.
        category: What a match counts as.
        action: What is done; None takes the category's.
    """

    name: Annotated[str, StringConstraints(min_length=1, max_length=80)] = "blocked"
    words: tuple[Word, ...] = Field(default=(), max_length=MAX_WORDS)
    patterns: tuple[Annotated[str, StringConstraints(min_length=1, max_length=500)], ...] = Field(
        default=(), max_length=MAX_PATTERNS
    )
    allowed: tuple[Word, ...] = Field(default=(), max_length=MAX_WORDS)
    category: Category = Category.BLOCKED_WORDS
    action: Action | None = None

    @field_validator("patterns")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        from generation.moderation.expressions import check  # only lists with patterns need the library

        for number, pattern in enumerate(patterns):
            check(pattern, number)
        return patterns

    @field_validator("words")
    @classmethod
    def _has_letters(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        for number, word in enumerate(words):
            if not any(character.isalnum() for character in word):
                raise ValueError(f"word {number + 1} has neither letter nor digit: it would match everywhere")
        return words


class LinkRules(_Frozen):
    """Which links are accepted; an empty list accepts all unless the category ``links`` has an action."""

    allowed_domains: tuple[Word, ...] = ()


class Policy(_Frozen):
    """What one tenant wants moderated.

    Attributes:
        strictness: The preset that everything else starts from.
        categories: Thresholds and actions that differ from the preset.
        nsfw_channel: Likewise, in channels that their platform marks NSFW.
        lists: Blocked words and patterns.
        links: Which links are accepted.
        attachments: Accepted file endings, without the dot.
        max_prompt_chars: Longest message, with the texts of its attachments.
        exempt: Roles to whom some categories do not apply; ``*`` stands for all but the absolute ones.
        shadow: Decide and record everything, act on nothing but the absolute categories.
        chinese_homophones: Also catch Chinese words that only sound like blocked ones.
        keep_texts: The tenant wants the texts of stopped requests kept, encrypted, for its moderators.
        retention_days: How long those texts, and decisions, are kept.
        appeals: What a refusal tells about appealing; empty for the platform's own words.
        picture_label: What is drawn into a corner of every picture; empty for the label of the operator, if any.
    """

    v: Literal[1] = POLICY_VERSION
    strictness: Strictness = "balanced"
    categories: Mapping[Category, CategoryRule] = Field(default_factory=dict)
    nsfw_channel: Mapping[Category, CategoryRule] = Field(default_factory=dict)
    lists: tuple[WordList, ...] = Field(default=(), max_length=20)
    links: LinkRules = LinkRules()
    attachments: tuple[Word, ...] = ACCEPTED_FILES
    max_prompt_chars: int = Field(default=32_000, ge=1, le=200_000)
    exempt: Mapping[Role, tuple[Category | Literal["*"], ...]] = Field(default_factory=dict)
    shadow: bool = False
    chinese_homophones: bool = True
    keep_texts: bool = False
    retention_days: int = Field(default=30, ge=1, le=3_650)
    appeals: str = Field(default="", max_length=300)
    picture_label: Label = ""

    @field_validator("categories", "nsfw_channel")
    @classmethod
    def _absolute_ones_stay(cls, rules: Mapping[Category, CategoryRule]) -> Mapping[Category, CategoryRule]:
        for category, rule in rules.items():
            if category not in ABSOLUTE:
                continue
            if rule.action is not None and not rule.action.stops:
                raise ValueError(f"{category} is always refused; its action can only be refuse or escalate")
            if rule.threshold is not None and rule.threshold > _ABSOLUTE_THRESHOLD:
                raise ValueError(f"{category} is always refused; its threshold can be at most {_ABSOLUTE_THRESHOLD}")
        return rules

    @field_validator("exempt")
    @classmethod
    def _nobody_is_exempt_from_all(
        cls, exempt: Mapping[str, tuple[Category | Literal["*"], ...]]
    ) -> Mapping[str, tuple[Category | Literal["*"], ...]]:
        for role, categories in exempt.items():
            if named := ABSOLUTE & {category for category in categories if category != "*"}:
                raise ValueError(f"nobody can be exempt from {min(named)}, and role {role!r} is to be")
        return exempt

    def at(self, *, nsfw: bool = False, roles: Sequence[str] = ()) -> EffectivePolicy:
        """How this policy applies to one request.

        Args:
            nsfw: Whether the channel is marked NSFW by its platform.
            roles: The user's roles there.
        """
        settings = dict(PRESETS[self.strictness])
        settings = _merged(settings, self.categories)
        if nsfw:
            settings = _merged({**settings, **_laxer(settings)}, self.nsfw_channel)
        for category in self._exempt(roles):
            settings[category] = Setting(1.0, Action.ALLOW)
        return EffectivePolicy(
            settings={category: (setting.threshold, setting.action) for category, setting in settings.items()},
            **{name: getattr(self, name) for name in _CARRIED},
        )

    def _exempt(self, roles: Sequence[str]) -> set[Category]:
        named: set[Category] = set()
        for role in roles:
            for category in self.exempt.get(role, ()):
                named |= set(Category) if category == "*" else {category}
        return named - ABSOLUTE


#: What a request carries of its tenant's policy as it is.
_CARRIED = (
    "lists",
    "links",
    "attachments",
    "max_prompt_chars",
    "shadow",
    "chinese_homophones",
    "keep_texts",
    "retention_days",
    "appeals",
    "picture_label",
)


class EffectivePolicy(_Frozen):
    """A policy for one request: which threshold and action hold for each category. See ``Policy`` for the rest."""

    v: Literal[1] = POLICY_VERSION
    settings: Mapping[Category, tuple[float, Action]]
    lists: tuple[WordList, ...] = ()
    links: LinkRules = LinkRules()
    attachments: tuple[str, ...] = ()
    max_prompt_chars: int = 32_000
    shadow: bool = False
    chinese_homophones: bool = True
    keep_texts: bool = False
    retention_days: int = 30
    appeals: str = ""
    picture_label: str = ""

    @field_validator("settings")
    @classmethod
    def _complete(cls, given: Mapping[Category, tuple[float, Action]]) -> Mapping[Category, tuple[float, Action]]:
        """A policy made elsewhere must not weaken what is absolute, nor leave a newer category open."""
        settings: dict[Category, tuple[float, Action]] = {**PRESETS["balanced"], **given}
        for category in ABSOLUTE:
            threshold, action = settings[category]
            kept = action if action.stops else Action.ESCALATE
            settings[category] = (min(threshold, _ABSOLUTE_THRESHOLD), kept)
        return settings

    def judge(self, finding: Finding) -> Verdict:
        """What follows from a finding."""
        threshold, action = self.settings[finding.category]
        if finding.threshold is not None:
            threshold = finding.threshold
        if finding.action is not None and action is not Action.ALLOW:
            action = finding.action
        absolute = finding.category in ABSOLUTE
        if finding.score < threshold:
            action = Action.ALLOW
        shadow = self.shadow and not absolute and action is not Action.ALLOW
        return Verdict(
            category=finding.category,
            score=finding.score,
            threshold=threshold,
            action=action,
            decided_by=finding.decided_by,
            version=finding.version,
            shadow=shadow,
            spans=finding.spans,
        )

    def decide(self, stage: Stage, findings: Iterable[Finding]) -> Decision:
        """What follows from everything that was found."""
        return Decision(stage, tuple(map(self.judge, findings)))


@functools.lru_cache(maxsize=8)
def default_policy(strictness: Strictness = "balanced") -> EffectivePolicy:
    """What holds for a request that carries no policy."""
    return Policy(strictness=strictness).at()


def _merged(settings: dict[Category, Setting], rules: Mapping[Category, CategoryRule]) -> dict[Category, Setting]:
    for category, rule in rules.items():
        now = settings[category]
        settings[category] = Setting(
            now.threshold if rule.threshold is None else rule.threshold,
            now.action if rule.action is None else rule.action,
        )
    return settings


def _laxer(settings: Mapping[Category, Setting]) -> dict[Category, Setting]:
    """What an NSFW channel loosens: never what a tenant already has looser."""
    return {
        category: setting
        for category, setting in NSFW_CHANNEL.items()
        if setting.action.severity < settings[category].action.severity
    }
