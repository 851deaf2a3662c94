"""Families of guard models: how each is asked, and what its answer means.

A model from the hub brings its own chat template, which is used. The templates here are the published ones, for copies
that have lost theirs. Sources: the model cards of Qwen3Guard-Gen (Qwen3Guard Technical Report, arXiv 2510.14276), Llama
Guard 4 (Meta's model cards and prompt formats), ShieldGemma (arXiv 2407.21772) and Granite Guardian (arXiv 2412.07724).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from generation.errors import ModelNotFoundError
from generation.moderation.types import Category


@dataclass(frozen=True, slots=True)
class Ask:
    """One question about a text.

    Args:
        arguments: What the chat template takes beside the text.
        category: What a yes counts as.
    """

    arguments: Mapping[str, object] = field(default_factory=dict)
    category: Category = Category.TOXICITY


@dataclass(frozen=True, slots=True)
class GuardFamily:
    """How a family of guard models is asked and understood.

    Args:
        name: For the record.
        matches: Tells the family by the model's name, in lower case.
        labels: The words that decide, as the answer writes them, and how objectionable a text so labelled is, 0 to 1.
        answer_tokens: Longest answer.
        asks: The questions about each text.
        categories: What the family calls our categories in its answer; None for what we have no category for.
        template: The published chat template.
    """

    name: str
    matches: str
    labels: Mapping[str, float]
    answer_tokens: int
    template: str
    asks: tuple[Ask, ...] = (Ask(),)
    categories: Mapping[str, Category | None] = field(default_factory=dict)

    def named(self, answer: str) -> list[Category]:
        """Categories that an answer names, those of ours that it means; empty if it names none that counts here.

        A family without names in its answers is never asked. An unknown name counts as the general category.
        """
        unique: dict[Category, None] = {}
        names = self._names(answer)
        for name in names:
            category = self.categories.get(name, Category.TOXICITY)
            if category is not None:
                unique[category] = None
        return list(unique) if names else [Category.TOXICITY]

    def _names(self, answer: str) -> list[str]:
        """What stands after the label: on a line of its own, with commas between."""
        lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
        listed = ",".join(lines[1:2]).removeprefix("Categories:")
        names = [name.strip(" .").lower() for name in listed.split(",")]
        return [name for name in names if name and name != "none"]


_QWEN3GUARD = GuardFamily(
    name="qwen3guard",
    matches=r"qwen3guard",
    # Controversial: unsafe to some; a half, which thresholds up to that act on and others do not.
    labels={" Safe": 0.0, " Controversial": 0.5, " Unsafe": 1.0},
    answer_tokens=32,
    categories={
        "violent": Category.VIOLENCE,
        "non-violent illegal acts": Category.ILLEGAL,
        "sexual content or sexual acts": Category.SEXUAL,
        "pii": Category.PERSONAL_DATA,
        "personally identifiable information": Category.PERSONAL_DATA,
        "suicide & self-harm": Category.SELF_HARM,
        "unethical acts": Category.TOXICITY,
        "jailbreak": Category.INJECTION,
        "politically sensitive topics": None,
        "copyright violation": None,
    },
    template="""{% for message in messages %}<|im_start|>user
# Task:
1) Evaluate whether THE LAST USER's query belongs to safe or unsafe content based on our safety policy.
2) Identify the category of unsafe content found.

<BEGIN SAFETY POLICY>
Safety: Safe: The USER's query does not contain any prohibited content or content that could lead to prohibited content.
Safety: Unsafe: The USER's query contains prohibited content.
Safety: Controversial: The USER's query does not explicitly contain prohibited content, but its intent, context, or \
potential responses could be misinterpreted, misused, or exploited to generate unsafe content under certain conditions.
<END SAFETY POLICY>

<BEGIN UNSAFE CONTENT CATEGORIES>
Violent.
Non-violent Illegal Acts.
Sexual Content or Sexual Acts.
PII.
Suicide & Self-Harm.
Unethical Acts.
Politically Sensitive Topics.
Copyright Violation.
Jailbreak.
<END UNSAFE CONTENT CATEGORIES>

<BEGIN CONVERSATION>

USER: {{ message['content'] }}

<END CONVERSATION>

Provide your safety assessment for ONLY THE LAST USER's query in the above conversation:
 - The first line must be one of: 'Safety: Safe', 'Safety: Unsafe', 'Safety: Controversial'.
 - The second line should start with 'Categories:' followed by a list of any unsafe content categories, separated by \
commas. If the content is safe, use 'Categories: None'.<|im_end|>
<|im_start|>assistant
<think>

</think>

{% endfor %}""",
)

#: The MLCommons taxonomy of hazards, as Llama Guard 3 and 4 number it.
_LLAMA_GUARD = GuardFamily(
    name="llama-guard",
    matches=r"llama-?guard",
    labels={"safe": 0.0, "unsafe": 1.0},
    answer_tokens=20,
    categories={
        "s1": Category.VIOLENCE,
        "s2": Category.ILLEGAL,
        "s3": Category.SEXUAL,
        "s4": Category.MINORS,
        "s5": Category.TOXICITY,
        "s6": None,  # advice that wants a specialist
        "s7": Category.PERSONAL_DATA,
        "s8": None,  # intellectual property
        "s9": Category.MASS_HARM,
        "s10": Category.HATE,
        "s11": Category.SELF_HARM,
        "s12": Category.SEXUAL,
        "s13": None,  # elections
        "s14": Category.ILLEGAL,
    },
    template="""{% for message in messages %}<|begin_of_text|><|header_start|>user<|header_end|>

Task: Check if there is unsafe content in 'User' messages in conversations according to our safety policy with the \
below categories.

<BEGIN UNSAFE CONTENT CATEGORIES>
S1: Violent Crimes.
S2: Non-Violent Crimes.
S3: Sex Crimes.
S4: Child Exploitation.
S5: Defamation.
S6: Specialized Advice.
S7: Privacy.
S8: Intellectual Property.
S9: Indiscriminate Weapons.
S10: Hate.
S11: Self-Harm.
S12: Sexual Content.
S13: Elections.
S14: Code Interpreter Abuse.
<END UNSAFE CONTENT CATEGORIES>

<BEGIN CONVERSATION>

User: {{ message['content'] }}

<END CONVERSATION>

Provide your safety assessment for ONLY THE LAST User message in the above conversation:
 - First line must read 'safe' or 'unsafe'.
 - If unsafe, a second line must include a comma-separated list of violated categories.<|eot|>\
<|header_start|>assistant<|header_end|>

{% endfor %}""",
)

_SHIELDGEMMA = GuardFamily(
    name="shieldgemma",
    matches=r"shieldgemma",
    labels={"Yes": 1.0, "No": 0.0},
    answer_tokens=1,
    asks=tuple(
        Ask({"guideline": guideline}, category)
        for category, guideline in (
            (
                Category.VIOLENCE,
                '"No Dangerous Content": The prompt shall not contain or seek generation of content that harms oneself '
                "and/or others (e.g., accessing or building firearms and explosive devices, promotion of terrorism, "
                "instructions for suicide).",
            ),
            (
                Category.INSULT,
                '"No Harassment": The prompt shall not contain or seek generation of content that is malicious, '
                "intimidating, bullying, or abusive content targeting another individual (e.g., physical threats, "
                "denial of tragic events, disparaging victims of violence).",
            ),
            (
                Category.HATE,
                '"No Hate Speech": The prompt shall not contain or seek generation of content that targets identity '
                "and/or protected attributes (e.g., racial slurs, promotion of discrimination, calls to violence "
                "against protected groups).",
            ),
            (
                Category.SEXUAL,
                '"No Sexually Explicit Information": The prompt shall not contain or seek generation of content that '
                "is sexually explicit (e.g., sexually graphic descriptions, content aimed at causing arousal).",
            ),
        )
    ),
    template="""{% for message in messages %}<bos>You are a policy expert trying to help determine whether a user
prompt is in violation of the defined safety policies.

<start_of_turn>
Human Question: {{ message['content'] | trim }}
<end_of_turn>

Our safety principle is defined in the below:

{{ guideline | trim }}

***
Does the human question violate the above principle? Your answer must start
with 'Yes' or 'No'. And then walk through step by step to be sure we answer
correctly.

{% endfor %}""",
)

_RISKS: dict[str, tuple[Category, str]] = {
    "harm": (Category.TOXICITY, "The 'User' message is harmful by common-sense."),
    "social_bias": (
        Category.HATE,
        "The 'User' message contains systemic prejudice against groups based on shared identity or characteristics, "
        "often stemming from stereotypes or cultural influences.",
    ),
    "violence": (Category.VIOLENCE, "The 'User' message promotes violence, threats, abuse, or physical injury."),
    "profanity": (
        Category.PROFANITY,
        "The 'User' message contains profane language that is offensive, insulting, or vulgar.",
    ),
    "sexual_content": (Category.SEXUAL, "The 'User' message contains content that is sexual in nature."),
}

_GRANITE = GuardFamily(
    name="granite-guardian",
    matches=r"granite-?guardian",
    # 3.3 and later write <score> yes </score>.
    labels={"Yes": 1.0, "No": 0.0, " Yes": 1.0, " No": 0.0, "yes": 1.0, "no": 0.0, " yes": 1.0, " no": 0.0},
    answer_tokens=10,
    asks=tuple(Ask({"guardian_config": {"risk_name": name}}, category) for name, (category, _) in _RISKS.items()),
    template="{% set definitions = {"
    + ", ".join(f'"{name}": "{definition}"' for name, (_, definition) in _RISKS.items())
    + """} %}{% for message in messages %}<|start_of_role|>user<|end_of_role|>You are a safety agent trying to help \
determine whether the user message is harmful according to the safety risk definition below.

<start_of_turn>
User Message: {{ message['content'] }}
<end_of_turn>

Our safety risk definition is defined below:
<start_of_risk_definition>
- {{ definitions[guardian_config['risk_name'] if guardian_config else 'harm'] }}
<end_of_risk_definition>

Is the user message harmful based on the risk definition? Your answer must be either 'Yes' or 'No'.<|end_of_text|>
<|start_of_role|>assistant<|end_of_role|>{% endfor %}""",
)

FAMILIES = (_QWEN3GUARD, _LLAMA_GUARD, _SHIELDGEMMA, _GRANITE)


def family_of(name: str) -> GuardFamily:
    """The family of a guard model.

    Args:
        name: Hub id or directory.

    Raises:
        ModelNotFoundError: It is of none that is known.
    """
    for family in FAMILIES:
        if re.search(family.matches, name.lower()):
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise ModelNotFoundError(f"{name!r} is no guard model that is known here. Known families are {known}.")
