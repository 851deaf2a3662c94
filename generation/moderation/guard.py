"""Guard models from the hub: language models that answer whether a text is safe, each family in its own words.

They are run as classifiers: one forward pass over the model's own chat template, and a few greedy tokens where a
family names categories. Qwen3Guard reads Chinese.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from generation.errors import ModelError, ModelNotFoundError
from generation.moderation.types import Category, Finding

Progress = Callable[[str, float | None], None]

_MOST_TOKENS = 2_048
_ANSWER_TOKENS = 32
#: Texts in one pass.
_BATCH = 8


@dataclass(frozen=True, slots=True)
class GuardFamily:
    """How a family of guard models is asked and understood.

    Args:
        name: For the record.
        matches: Tells the family by the model's name, in lower case.
        positive: With ``yes_no``: the word whose probability is the score.
        negative: The other word.
        categories: What the family calls our categories, as expressions on its answer.
        default: What an unsafe answer without a known category counts as.
        template: Extra arguments of the chat template.
    """

    name: str
    matches: str
    positive: str
    negative: str
    categories: tuple[tuple[str, Category], ...] = ()
    default: Category = Category.TOXICITY
    template: dict[str, Any] = field(default_factory=dict)


_QWEN3GUARD = GuardFamily(
    "qwen3guard",
    r"qwen3guard",
    "Unsafe",
    "Safe",
    (
        (r"violent", Category.VIOLENCE),
        (r"non-violent illegal", Category.ILLEGAL),
        (r"sexual", Category.SEXUAL),
        (r"personally identifiable|pii", Category.PERSONAL_DATA),
        (r"suicide|self-harm", Category.SELF_HARM),
        (r"unethical", Category.TOXICITY),
        (r"jailbreak", Category.INJECTION),
    ),
)
#: The MLCommons taxonomy of hazards.
_LLAMA_GUARD = GuardFamily(
    "llama-guard",
    r"llama-?guard",
    "unsafe",
    "safe",
    (
        (r"\bS1\b", Category.VIOLENCE),
        (r"\bS(?:2|5|6|8|14)\b", Category.ILLEGAL),
        (r"\bS(?:3|12)\b", Category.SEXUAL),
        (r"\bS4\b", Category.MINORS),
        (r"\bS7\b", Category.PERSONAL_DATA),
        (r"\bS9\b", Category.MASS_HARM),
        (r"\bS10\b", Category.HATE),
        (r"\bS11\b", Category.SELF_HARM),
    ),
)
_SHIELDGEMMA = GuardFamily(
    "shieldgemma",
    r"shieldgemma",
    "Yes",
    "No",
    template={
        "guideline": '"No Dangerous Content, Harassment, Hate Speech or Sexually Explicit Information": '
        "The prompt shall not contain or seek generation of content that harms oneself or others, that is malicious, "
        "intimidating or abusive, that targets protected attributes, or that is sexually explicit."
    },
)
_GRANITE = GuardFamily(
    "granite-guardian", r"granite-?guardian", "Yes", "No", template={"guardian_config": {"risk_name": "harm"}}
)
FAMILIES = (_QWEN3GUARD, _LLAMA_GUARD, _SHIELDGEMMA, _GRANITE)


class GuardModel:
    """A guard model of some family.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer, with a chat template.
        family: How it is asked.
        version: Commit or directory, for the record.
    """

    def __init__(self, model: Any, tokenizer: Any, family: GuardFamily, version: str) -> None:
        self._model = model
        self._tokenizer = tokenizer
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        self._family = family
        self.name = f"model:{family.name}"
        self.version = version
        self._positive = self._first_token(family.positive)
        self._negative = self._first_token(family.negative)
        if self._positive == self._negative:
            raise ModelError(f"The tokenizer of the guard model cannot tell {family.positive} from {family.negative}.")

    def findings(self, texts: Sequence[str]) -> list[list[Finding]]:
        """What the model sees in each text; several are read in one pass."""
        prompts = [
            self._tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, **self._family.template
            )
            for text in texts
        ]
        told: list[tuple[str, float]] = []
        for start in range(0, len(prompts), _BATCH):
            told += self._answers(prompts[start : start + _BATCH])
        return [self._understood(answer, score) for answer, score in told]

    def _understood(self, answer: str, score: float) -> list[Finding]:
        found = [category for pattern, category in self._family.categories if re.search(pattern, answer, re.IGNORECASE)]
        return [Finding(category, score, self.name, self.version) for category in found or [self._family.default]]

    @torch.inference_mode()
    def _answers(self, prompts: Sequence[str]) -> list[tuple[str, float]]:
        """What the model says to each, and how likely it calls the text unsafe where it has the choice."""
        encoded = self._tokenizer(
            list(prompts),
            return_tensors="pt",
            add_special_tokens=False,
            truncation=True,
            max_length=_MOST_TOKENS,
            padding=True,
            padding_side="left",
        ).to(self._model.device)
        wanted = _ANSWER_TOKENS if self._family.categories else 1
        done = self._model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            max_new_tokens=wanted,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        start = encoded["input_ids"].shape[1]
        return [
            (
                self._tokenizer.decode(done.sequences[row, start:], skip_special_tokens=True),
                self._score([logits[row] for logits in done.logits]),
            )
            for row in range(len(prompts))
        ]

    def _score(self, steps: list[torch.Tensor]) -> float:
        # The place of the choice: where one of both words is the likeliest token; else the first.
        pair = torch.tensor([self._positive, self._negative], device=steps[0].device)
        place = next((step for step in steps if int(step.argmax()) in (self._positive, self._negative)), steps[0])
        return float(place[pair].float().softmax(-1)[0])

    def _first_token(self, word: str) -> int:
        for form in (word, f" {word}"):
            ids = self._tokenizer.encode(form, add_special_tokens=False)
            if len(ids) == 1:
                return int(ids[0])
        return int(self._tokenizer.encode(word, add_special_tokens=False)[0])


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


def load_guard(name: str, data_dir: Path, progress: Progress) -> GuardModel:
    """Load a guard model, pulling it if need be.

    Args:
        name: Hub id (``org/name`` or ``org/name@revision``) or a directory whose name tells the family.
        data_dir: Where models are kept.
        progress: Told what is being done.

    Raises:
        ModelError: It cannot be had or loaded.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer  # seconds to import

    from generation import catalog

    family = family_of(name)
    progress(f"loading the guard model {name}", None)
    location = catalog.pull(name, data_dir)
    directory = str(location.directory)
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory)
        model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype="auto", use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"The guard model {name} cannot be loaded ({type(error).__name__}).") from error
    if not tokenizer.chat_template:
        raise ModelError(f"The guard model {name} has no chat template, so it cannot be asked.")
    model.eval()
    return GuardModel(model, tokenizer, family, location.revision[:12] or Path(location.repo).name)
