"""Approved answers that are given word for word, with slots that the customer fills."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from generation.errors import InvalidRequestError

#: Name of the entry of a document's metadata that makes it a template.
METADATA = "template"
MAX_TEXT_CHARS = 4000
MAX_QUESTIONS = 30
MAX_PATTERN_CHARS = 80
MAX_VALUE_CHARS = 100
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")
_SLOT = re.compile(r"\{([a-z][a-z0-9_]{0,39})\}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True)
class Slot:
    """Something that an answer names and a customer has to say.

    Args:
        name: As the text has it in braces.
        pattern: A regular expression without groups that finds it in what was said.
        ask: How it is asked for when it is missing.
    """

    name: str
    pattern: str
    ask: str


@dataclass(frozen=True, slots=True)
class Template:
    """An approved answer.

    Args:
        template_id: Its name: small letters, digits and hyphens.
        questions: Ways in which it is asked for; the intent is told by them.
        text: What is said, with slots as ``{order_number}``.
        slots: One for each of the text's.
    """

    template_id: str
    questions: tuple[str, ...]
    text: str
    slots: tuple[Slot, ...] = ()

    def filled(self, said: Sequence[str]) -> tuple[str, Slot | None]:
        """The text with what was said in it, or the slot that is missing.

        Args:
            said: Latest first.
        """
        values: dict[str, str] = {}
        for slot in self.slots:
            value = next((found for text in said if (found := _value(slot, text))), None)
            if value is None:
                return "", slot
            values[slot.name] = value
        return _SLOT.sub(lambda found: values[found.group(1)], self.text), None

    def fills(self, text: str) -> bool:
        """Whether somebody says what a slot asks for."""
        return any(_value(slot, text) for slot in self.slots)


def validated(template: Template) -> Template:
    """The same template, if it can be used.

    Raises:
        InvalidRequestError: What is wrong with it.
    """
    if not _ID.fullmatch(template.template_id):
        raise InvalidRequestError("A template's id is small letters, digits and hyphens, such as order-status.")
    if not 0 < len(template.questions) <= MAX_QUESTIONS or not all(each.strip() for each in template.questions):
        raise InvalidRequestError(f"A template needs 1 to {MAX_QUESTIONS} questions that it answers.")
    if not template.text.strip() or len(template.text) > MAX_TEXT_CHARS:
        raise InvalidRequestError(f"A template needs a text of at most {MAX_TEXT_CHARS} characters.")
    named, known = set(_SLOT.findall(template.text)), {slot.name for slot in template.slots}
    if missing := named - known:
        raise InvalidRequestError(f"The text has the slot {{{min(missing)}}}, which has no pattern.")
    if unused := known - named:
        raise InvalidRequestError(f"The slot {min(unused)} has a pattern and is not in the text.")
    if "{" in _SLOT.sub("", template.text) or "}" in _SLOT.sub("", template.text):
        raise InvalidRequestError("Braces are for slots: a name in small letters, such as {order_number}.")
    for slot in template.slots:
        _validate(slot)
    return template


def to_metadata(template: Template) -> dict[str, str]:
    """What a document's metadata has of a template."""
    slots = [{"name": slot.name, "pattern": slot.pattern, "ask": slot.ask} for slot in template.slots]
    written = {"id": template.template_id, "questions": template.questions, "text": template.text, "slots": slots}
    return {METADATA: json.dumps(written, ensure_ascii=False)}


def from_metadata(metadata: Mapping[str, str]) -> Template | None:
    """The template of a document; None for documents that are none."""
    if METADATA not in metadata:
        return None
    read = json.loads(metadata[METADATA])
    slots = tuple(Slot(slot["name"], slot["pattern"], slot["ask"]) for slot in read["slots"])
    return Template(read["id"], tuple(read["questions"]), read["text"], slots)


def _validate(slot: Slot) -> None:
    if not _NAME.fullmatch(slot.name):
        raise InvalidRequestError(f"{slot.name!r} is no name of a slot: small letters, digits and underscores.")
    # Without groups nothing can be repeated that is repeated itself: no text makes such a pattern slow.
    if not slot.pattern or len(slot.pattern) > MAX_PATTERN_CHARS or re.search(r"(?<!\\)[()]|\\[1-9]", slot.pattern):
        raise InvalidRequestError(f"The pattern of {slot.name} has 1 to {MAX_PATTERN_CHARS} characters and no groups.")
    try:
        empty = re.compile(slot.pattern).fullmatch("") is not None
    except re.error as error:
        raise InvalidRequestError(f"The pattern of {slot.name} is none: {error}.") from None
    if empty:
        raise InvalidRequestError(f"The pattern of {slot.name} finds nothing in particular: it fits no characters.")
    if not slot.ask.strip():
        raise InvalidRequestError(f"How is {slot.name} asked for when it is missing? Say so.")


def _value(slot: Slot, text: str) -> str | None:
    found = re.search(rf"(?<![A-Za-z0-9])(?:{slot.pattern})(?![A-Za-z0-9])", text[:2000], re.IGNORECASE)
    return found.group()[:MAX_VALUE_CHARS] if found else None
