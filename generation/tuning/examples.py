"""The supervised set: dialogues with an answer that somebody has approved, masked, and split once and for all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from generation.errors import TuningError
from generation.moderation import personal_data
from generation.moderation.spelling import fold
from generation.moderation.types import Span, mask
from generation.types import Message

#: So much of a set is held out: never trained on, only measured.
HELD_OUT_SHARE = 0.2
_LONGEST_LINE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Example:
    """One dialogue.

    Args:
        source: Name of what it was made of: if that is deleted, whatever was trained on it is stale.
        messages: Oldest first; the last but one is the user's, the last the answer to learn.
    """

    source: str
    messages: tuple[Message, ...]

    @property
    def answer(self) -> str:
        """What is learnt."""
        return self.messages[-1].content

    @property
    def question(self) -> str:
        """What it answers."""
        return self.messages[-2].content


def example(source: str, question: str, answer: str, persona: str = "") -> Example:
    """A question and its answer, behind the system text that the model is shown in service."""
    opening = (Message("system", persona),) if persona else ()
    return Example(source, (*opening, Message("user", question), Message("assistant", answer)))


def read_file(path: Path) -> list[Example]:
    """Dialogues of a JSONL file: a list of messages a line, or an object with them under ``messages``.

    Raises:
        TuningError: It cannot be read; the message names the line.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TuningError(f"{path} cannot be read: {type(error).__name__}.") from None
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(_read_line(path, line))
            except (ValueError, KeyError, TypeError, RecursionError):
                raise TuningError(
                    f"{path}, line {number}: no dialogue. Write "
                    '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}.'
                ) from None
    return found


def _read_line(path: Path, line: str) -> Example:
    if len(line) > _LONGEST_LINE_BYTES:
        raise ValueError("a line that long is no dialogue")
    told = json.loads(line)
    turns = told["messages"] if isinstance(told, dict) else told
    messages = tuple(Message(turn["role"], turn["content"]) for turn in turns)
    if not all(turn.role in ("system", "user", "assistant") and isinstance(turn.content, str) for turn in messages):
        raise ValueError("not a message")
    if len(messages) < 2 or messages[-1].role != "assistant" or not messages[-1].content.strip():
        raise ValueError("no answer")
    if messages[-2].role != "user" or any(turn.role == "system" for turn in messages[1:]):
        raise ValueError("no conversation that a person's words end")
    return Example(f"file:{path.name}:{hashlib.sha256(line.encode()).hexdigest()[:24]}", messages)


def prepared(examples: Iterable[Example]) -> list[Example]:
    """A set as it is learnt: personal data masked, what says the same only once, always in the same order."""
    unique: dict[str, Example] = {}
    for each in examples:
        clean = replace(each, messages=tuple(Message(turn.role, masked(turn.content)) for turn in each.messages))
        unique.setdefault(_digest([asdict(turn) for turn in clean.messages]), clean)
    return [unique[digest] for digest in sorted(unique)]


def masked(text: str) -> str:
    """The text with personal data and secrets replaced by what they are, such as ``[e-mail]``."""
    folded = fold(text)
    found = (span for _, _, span in personal_data.find(folded.text))
    return mask(text, (Span(*folded.span(span.start, span.end), span.mask) for span in found))


def split(examples: Sequence[Example], share: float = HELD_OUT_SHARE) -> tuple[list[Example], list[Example]]:
    """What is trained on and what is held out.

    A hash of the question decides, so that a question is on the same side in every run, however the set grows, and the
    same question with two answers is on one side.

    Args:
        examples: The set.
        share: Of it that is held out, above 0 and below 1.
    """
    train: list[Example] = []
    held_out: list[Example] = []
    for each in examples:
        words = " ".join(fold(each.question).text.split())
        place = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") / 2**64
        (held_out if place < share else train).append(each)
    return train, held_out


def fingerprint(examples: Sequence[Example], *more: object) -> str:
    """Of a set, and of whatever else decides what is learnt: the same one means the same adapter."""
    return _digest([[asdict(turn) for turn in each.messages] for each in examples], *map(str, more))


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
