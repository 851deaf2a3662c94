"""What a person writes behind ``/imagine``: a prompt and flags such as ``--ar 16:9 --n 4``, on any platform.

A flag begins with two dashes at the start of a word, or with the one long dash that keyboards make of them. Its value
is the next word or what stands in quotes; that of ``--negative`` reaches to the next flag. All else is the prompt.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from workers.contract import ImageOptions

MAX_PROMPT_CHARS = 10_000

_FLAG = re.compile(r"(?<!\S)(?:--|[\u2013\u2014]-?)(?P<name>[A-Za-z][A-Za-z-]*)(?P<equals>=?)")
#: Quotes as typed, and as keyboards make them.
_QUOTED = re.compile(r"\s*(?:\"(?P<a>[^\"]*)\"|[\u201c\u201d\u201e](?P<b>[^\u201c\u201d]*)[\u201c\u201d])(?!\S)")
_WORD = re.compile(r"\s*(?P<word>\S+)")
_RATIO = re.compile(r"([0-9]{1,4}(?:\.[0-9]{1,4})?):([0-9]{1,4}(?:\.[0-9]{1,4})?)")
_QUOTES = '"\u201c\u201d\u201e'
#: What a value without quotes cannot contain, or begin with.
_NO_WORD = re.compile(rf"\s|^[{_QUOTES}]|^(?:--|[\u2013\u2014])")
_WIDEST = 4.0
_WHOLE = re.compile(r"\d{1,19}")
_DECIMAL = re.compile(r"\d{1,4}(?:\.\d{1,6})?")


class FlagError(ValueError):
    """A flag is wrong; the message says which, and what is allowed."""


@dataclass(frozen=True, slots=True)
class ParsedPrompt:
    """What is to be drawn, and how.

    Attributes:
        prompt: What the pictures show.
        negative_prompt: What they do not show.
        options: Everything else.
        model: Which model draws it; None for the usual one.
    """

    prompt: str
    negative_prompt: str = ""
    options: ImageOptions = field(default_factory=ImageOptions)
    model: str | None = None


@dataclass(frozen=True, slots=True)
class _Flag:
    """One flag: which field it sets, what it allows in words, and how its text is read (None if it cannot be)."""

    field: str
    allowed: str
    read: Callable[[str], Any]


def _whole(low: int, high: int) -> Callable[[str], int | None]:
    return lambda text: int(text) if _WHOLE.fullmatch(text) and low <= int(text) <= high else None


def _decimal(low: float, high: float) -> Callable[[str], float | None]:
    return lambda text: float(text) if _DECIMAL.fullmatch(text) and low <= float(text) <= high else None


def _ratio(text: str) -> str | None:
    match = _RATIO.fullmatch(text)
    if not match:
        return None
    width, height = float(match[1]), float(match[2])
    return text if height and width and 1 / _WIDEST <= width / height <= _WIDEST else None


def _name(text: str) -> str | None:
    return text if 1 <= len(text) <= 80 else None


def _model(text: str) -> str | None:
    return text if 1 <= len(text) <= 200 else None


FLAGS = {
    "ar": _Flag("aspect_ratio", "width:height between 1:4 and 4:1, such as 16:9", _ratio),
    "n": _Flag("n", "a whole number of pictures from 1 to 8", _whole(1, 8)),
    "seed": _Flag("seed", "a whole number from 0 to 9223372036854775807", _whole(0, 2**63 - 1)),
    "steps": _Flag("num_inference_steps", "a whole number of steps from 1 to 200", _whole(1, 200)),
    "style": _Flag("style", "the name of a style, such as watercolor", _name),
    "model": _Flag("", "the name of an image model that runs here", _model),
    "negative": _Flag("", "what the picture should not show", lambda text: text),
    "guidance": _Flag("guidance_scale", "a number from 0 to 30", _decimal(0, 30)),
}


def parse(text: str) -> ParsedPrompt:
    """Read a prompt with its flags.

    Args:
        text: What was written.

    Returns:
        Prompt and options.

    Raises:
        FlagError: A flag is unknown, repeated, without a value or with a wrong one, or there is no prompt.
    """
    prompt, values = "", {}
    position = 0
    while match := _FLAG.search(text, position):
        name = match["name"].lower()
        if name in values:
            raise FlagError(f"--{name} is given twice.")
        if name not in FLAGS:
            raise FlagError(_unknown(name))
        prompt += text[position : match.start()] + " "
        value, position = _value(text, match.end(), name)
        values[name] = value
    prompt = " ".join((prompt + text[position:]).split())
    if not prompt:
        raise FlagError("Say what the picture should show, for example: a lighthouse at dusk --ar 16:9 --n 4")
    if len(prompt) > MAX_PROMPT_CHARS:
        raise FlagError(f"The prompt is longer than {MAX_PROMPT_CHARS} characters.")
    return _prompt(prompt, values)


def render(asked: ParsedPrompt) -> str:
    """Write a prompt so that ``parse`` reads it again: what a person edits."""
    parts = [asked.prompt]
    defaults = ImageOptions()
    for name, flag in FLAGS.items():
        if flag.field and (value := getattr(asked.options, flag.field)) != getattr(defaults, flag.field):
            parts.append(f"--{name} {_quoted(str(value)) if re.search(_NO_WORD, str(value)) else value}")
    if asked.model:
        parts.append(f"--model {_quoted(asked.model) if re.search(_NO_WORD, asked.model) else asked.model}")
    if negative := asked.negative_prompt:
        plain = not _FLAG.search(negative) and negative[0] not in _QUOTES
        parts.append(f"--negative {negative if plain else _quoted(negative)}")
    return " ".join(parts)


def _quoted(value: str) -> str:
    """In quotes that do not occur in it; single ones replace others where both kinds do."""
    if '"' not in value:
        return f'"{value}"'
    if not re.search("[\u201c\u201d]", value):
        return f"\u201c{value}\u201d"
    return '"' + value.replace('"', "'") + '"'


def describe(flags: Sequence[str] = tuple(FLAGS)) -> str:
    """All flags with what they allow, one a line."""
    return "\n".join(f"--{name}: {FLAGS[name].allowed}" for name in flags)


def _value(text: str, position: int, name: str) -> tuple[Any, int]:
    """The value behind a flag, and where the text goes on."""
    following = _FLAG.search(text, position)
    end = following.start() if following else len(text)
    quoted, word = _QUOTED.match(text, position), _WORD.match(text, position)
    if quoted:
        raw, position = (quoted["a"] if quoted["a"] is not None else quoted["b"]), quoted.end()
    elif name == "negative":
        raw, position = text[position:end], end
    elif word and word.start("word") < end:
        raw, position = word["word"], word.end()
    else:
        raw = ""
    raw = " ".join(raw.split())
    if not raw:
        raise FlagError(f"--{name} needs a value: {FLAGS[name].allowed}.")
    value = FLAGS[name].read(raw)
    if value is None:
        raise FlagError(f"--{name} does not take {raw[:40]}; it takes {FLAGS[name].allowed}.")
    return value, position


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, FLAGS, n=1)
    hint = f"; did you mean --{close[0]}?" if close else "."
    return f"There is no flag --{name[:40]}{hint} Flags: {', '.join('--' + known for known in FLAGS)}."


def _prompt(prompt: str, values: dict[str, Any]) -> ParsedPrompt:
    negative, model = values.pop("negative", ""), values.pop("model", None)
    if len(negative) > MAX_PROMPT_CHARS:
        raise FlagError(f"--negative is longer than {MAX_PROMPT_CHARS} characters.")
    try:
        options = ImageOptions(**{FLAGS[name].field: value for name, value in values.items()})
    except ValidationError as error:  # a range of the contract that is narrower than the table's
        field = str(error.errors(include_input=False, include_url=False)[0]["loc"][-1])
        name = next((known for known, flag in FLAGS.items() if flag.field == field), field)
        raise FlagError(f"--{name} takes {FLAGS[name].allowed}.") from None
    return ParsedPrompt(prompt, negative, options, model)
