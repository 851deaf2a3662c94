"""A short prompt to a detailed one, by the chat model: what it is asked, and what is taken of its answer."""

from __future__ import annotations

import re

from generation.types import Message, Sampling

#: A prompt that already says this much is left alone.
LONG_PROMPT_WORDS = 30
#: More than image models read.
_MOST_CHARACTERS = 350
_LEAST_WORDS = 4

_INSTRUCTION = (
    "You turn short ideas for pictures into one vivid sentence for a text-to-image model. Keep every thing, number, "
    "colour and place that the idea names. Add setting, light, colours and style. Answer with the sentence only."
)
# Small models follow examples better than instructions.
_EXAMPLES = (
    (
        "a dog",
        "A happy golden retriever running through a sunny meadow of wildflowers, soft morning light, shallow depth of "
        "field, detailed fur.",
    ),
    (
        "two red boats on a lake",
        "Two red wooden boats resting on a calm mountain lake at sunrise, mist over the water, snowy peaks reflected, "
        "warm golden light.",
    ),
    (
        "robot in a city, cartoon",
        "A friendly blue robot walking through a busy city street at night, cartoon style, glowing neon signs, bold "
        "outlines, bright colours.",
    ),
)
_PREAMBLE = re.compile(
    r"^(sure|certainly|of course|okay|here(?:'s| is| are))\b[^:\n]*[:!.]\s*|"
    r"^(the |a )?(detailed |rewritten |enhanced |improved )?(sentence|prompt|picture|image|idea|description)\s*:\s*",
    re.IGNORECASE,
)
_QUOTES = "\"'`“”„«»*_ "
_REFUSAL = re.compile(r"\b(as an ai|i(?:'m| am) sorry|i can(?:'|no)t|unable to|language model)\b", re.IGNORECASE)
_STOP_WORDS = frozenset("a an the of in on at to and or with by for from is are its it one some".split())  # noqa: SIM905 - reads


def worth_enhancing(prompt: str) -> bool:
    """Whether a prompt is short enough to gain, and in letters that small chat models write well."""
    words = prompt.split()
    return 0 < len(words) < LONG_PROMPT_WORDS and sum(sign.isascii() for sign in prompt) >= 0.8 * len(prompt)


def messages(prompt: str) -> tuple[Message, ...]:
    """The conversation whose next answer is the detailed prompt.

    Args:
        prompt: What the user wrote.
    """
    told = [Message("system", _INSTRUCTION)]
    for idea, sentence in _EXAMPLES:
        told += [Message("user", idea), Message("assistant", sentence)]
    return (*told, Message("user", " ".join(prompt.split())))


def sampling(seed: int | None = None) -> Sampling:
    """How that answer is sampled: a little variety, one paragraph, an early end."""
    return Sampling(max_new_tokens=80, temperature=0.6, top_p=0.9, repetition_penalty=1.1, seed=seed, stop=("\n\n",))


def enhanced(prompt: str, answer: str) -> str:
    """What is drawn: the answer, if it is one, else the prompt as it was.

    An answer counts if it is a sentence, refuses nothing and still names most of what the prompt names; what it lost
    is put in front, so that nothing the user asked for is missing.

    Args:
        prompt: What the user wrote.
        answer: What the chat model answered to ``messages``.
    """
    sentence = _cleaned(answer)
    words = sentence.split()
    if len(words) < _LEAST_WORDS or _REFUSAL.search(sentence) or len(words) <= len(prompt.split()):
        return prompt
    if any(sentence == example for _, example in _EXAMPLES):
        return prompt
    if not _lost(prompt, sentence):
        return sentence
    return _shortened(f"{prompt.strip().rstrip('.,;')}, {sentence[0].lower()}{sentence[1:]}")


def _cleaned(answer: str) -> str:
    """One line without what models put around it."""
    text = answer.strip()
    for _ in range(3):
        text = _PREAMBLE.sub("", text.strip().strip(_QUOTES).strip(), count=1)
    lines = [line.strip().lstrip("-•0123456789.) ") for line in text.splitlines() if line.strip()]
    return _shortened(lines[0].strip(_QUOTES) if lines else "")


def _shortened(text: str) -> str:
    """Cut at the end of a sentence or clause."""
    text = " ".join(text.split())
    if len(text) > _MOST_CHARACTERS:
        head = text[:_MOST_CHARACTERS]
        end = max(head.rfind(". ") + 1, head.rfind(", "), 0)
        text = head[:end] if end > _MOST_CHARACTERS // 2 else head.rpartition(" ")[0]
    return text.rstrip(",; ")


def _lost(prompt: str, sentence: str) -> set[str]:
    """Words of the prompt that the sentence does not have, by their beginnings: ``cats`` is in ``a cat``."""
    said = sentence.lower()
    wanted = {word for word in re.findall(r"\w+", prompt.lower()) if word not in _STOP_WORDS}
    return {word for word in wanted if word[: max(3, len(word) - 2)] not in said}
