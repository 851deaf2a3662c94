"""Guard models from the hub: language models that answer whether a text is safe, each family in its own words.

A guard's prompt is a request of the chat engine like any other, batched with whatever is in flight there. The score is
read from the probabilities of the words that decide, at the place of the answer where one of them is due.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from generation.errors import ModelError
from generation.moderation.guard_families import GuardFamily, family_of
from generation.moderation.parts import windows
from generation.moderation.questions import Answer, Question, Questions
from generation.moderation.types import Category, Finding
from generation.types import Message

if TYPE_CHECKING:
    from generation.chat.loading import LoadedModel
    from generation.moderation.config import ModerationConfig

Progress = Callable[[str, float | None], None]

#: Longer texts are read in parts, so that nothing hides behind a long beginning.
_PART_CHARS = 2_000
_SLOTS = 16
#: Of the memory that is free once its weights are there; the chat engine takes of what is left.
_MEMORY_SHARE = 0.15
#: Where the words that decide have this share of the probability, the model is deciding.
_DECIDING = 0.5
#: Where they never have this much the model does not do what its family does, and its answer counts as undecided.
_LEAST = 0.05
UNDECIDED = 0.5


class GuardModel:
    """A guard model of some family.

    Args:
        questions: Asks the model.
        family: How it is asked.
        version: Commit or directory, for the record.

    Raises:
        ModelError: Its tokenizer cannot tell the family's words apart.
    """

    def __init__(self, questions: Questions, family: GuardFamily, version: str) -> None:
        self._questions = questions
        self._family = family
        self.name = f"model:{family.name}"
        self.version = version
        self._tokens = _tokens(questions, family)

    def findings(self, texts: Sequence[str]) -> list[list[Finding]]:
        """What the model sees in each text: one finding for each category, the worst part's.

        Raises:
            ModerationUnavailableError: It could not be asked.
        """
        asked = [
            (place, ask, part)
            for place, text in enumerate(texts)
            for part in windows(text, _PART_CHARS)
            if part.strip()
            for ask in self._family.asks
        ]
        answers = self._questions.ask([self._question(part, ask.arguments) for _, ask, part in asked])
        worst: list[dict[Category, float]] = [{} for _ in texts]
        for (place, ask, _), answer in zip(asked, answers, strict=True):
            score = self._score(answer)
            named = self._family.named(answer.text) if self._family.categories else [ask.category]
            for category in named:
                worst[place][category] = max(worst[place].get(category, 0.0), score)
        return [
            [Finding(category, score, self.name, self.version) for category, score in found.items()] for found in worst
        ]

    def _question(self, text: str, arguments: object) -> Question:
        return Question(
            (Message("user", text),),
            self._family.answer_tokens,
            arguments if isinstance(arguments, dict) else {},
            tuple(self._tokens),
        )

    def _score(self, answer: Answer) -> float:
        """How objectionable the text is: the labels' own, weighed by their probabilities where the model decides."""
        sums = [sum(place) for place in answer.scores]
        if max(sums, default=0.0) < _LEAST:
            return UNDECIDED
        decided = next((place for place, total in enumerate(sums) if total >= _DECIDING), sums.index(max(sums)))
        weighed = zip(answer.scores[decided], self._tokens.values(), strict=True)
        return sum(probability * value for probability, value in weighed) / sums[decided]


def _tokens(questions: Questions, family: GuardFamily) -> dict[int, float]:
    """The tokens that the family's words begin with, and what each stands for."""
    found: dict[int, float] = {}
    for word, value in family.labels.items():
        token = questions.first_token(word)
        if found.setdefault(token, value) != value:
            words = ", ".join(map(repr, family.labels))
            raise ModelError(
                f"The tokenizer of {questions.model} cannot tell the answers of its family apart: {words}."
            )
    return found


def load_guard(
    config: ModerationConfig, progress: Progress, meanwhile: Callable[[], None] = lambda: None
) -> GuardModel:
    """Load a guard model into a chat engine of its own, pulling it if need be.

    Args:
        config: ``text_model`` is a hub id (``org/name`` or ``org/name@revision``) or a directory whose name tells the
            family.
        progress: Told what is being done.
        meanwhile: Called after each of that engine's steps: what else has to go on.

    Raises:
        GenerationError: It cannot be had or loaded.
    """
    from generation import catalog
    from generation.chat.config import ChatConfig
    from generation.chat.engine import ChatEngine  # seconds to import
    from generation.chat.loading import load

    family = family_of(config.text_model)
    chat = ChatConfig(
        model=config.text_model,
        data_dir=config.data_dir,
        device=config.device,
        dtype=config.dtype,
        threads=config.threads,
        slots=_SLOTS,
        memory_share=_MEMORY_SHARE,
    )
    progress(f"loading the guard model {config.text_model}", None)
    loaded = load(chat, progress)
    give_template(loaded, family)
    location = catalog.resolve(config.text_model, config.data_dir)
    version = location.revision[:12] or Path(location.repo).name
    return GuardModel(Questions(ChatEngine(loaded, chat), _SLOTS, meanwhile), family, version)


def give_template(loaded: LoadedModel, family: GuardFamily) -> None:
    """The family's published chat template, where a model brings none of its own."""
    from generation.chat.prompt import default_template

    if loaded.tokenizer.chat_template == default_template(loaded.tokenizer):
        loaded.tokenizer.chat_template = family.template
