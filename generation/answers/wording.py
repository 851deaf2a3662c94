"""What is said where nothing is quoted, in the language of the question."""

from __future__ import annotations

from collections.abc import Sequence

from generation.retrieval.language import language_of

_UNKNOWN = {
    "en": "I do not know: nothing that I have been given answers this.",
    "zh": "这个问题我不知道：现有资料中没有答案。",
}
_MEANT = {"en": "I am not sure. Did you mean:", "zh": "我不太确定。您想问的是："}
_LEARNT = "Known from now on."
_UNLEARNT = "Not known any more."


def unknown(question: str) -> str:
    """That there is no answer."""
    return _said(_UNKNOWN, question)


def did_you_mean(question: str, suggestions: Sequence[str]) -> str:
    """That one of these may have been meant."""
    return "\n".join([_said(_MEANT, question), *(f"- {each}" for each in suggestions)])


def learnt(task: str) -> str:
    """That an approved pair was added or removed."""
    return _LEARNT if task == "learn" else _UNLEARNT


def _said(words: dict[str, str], question: str) -> str:
    return words.get(language_of(question), words["en"])
