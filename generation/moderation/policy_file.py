"""Reading a tenant's policy from TOML, and saying in which line a mistake is."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from generation.errors import PolicyError
from generation.moderation.policy import CategoryRule, LinkRules, Policy, WordList
from generation.moderation.presets import Strictness
from generation.moderation.types import Action, Category

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")

#: What the library calls a choice of a union, which nobody has written.
_TYPE = re.compile(r"str-enum\[|literal\[")

Path = tuple[str | int, ...]


def read_policy(text: str, source: str = "policy.toml") -> Policy:
    """Read a policy.

    Args:
        text: TOML with the fields of ``Policy``.
        source: What the text is called in messages.

    Raises:
        PolicyError: It is no TOML, or a key or value is wrong; the message names the line and the key.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at_end = f"line {max(1, len(text.splitlines()))}, at end of document"
        raise PolicyError(f"{source}: {str(error).replace('at end of document', at_end)}.") from None
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        path = tuple(part for part in fault["loc"] if part != "[key]" and not _TYPE.match(str(part)))
        line = line_of(text, _place(path, fault["msg"]))
        where = f"{source}:{line}" if line else source
        raise PolicyError(f"{where}: {_dotted(path)}: {_told(fault, path)}") from None


def line_of(text: str, path: Path) -> int:
    """The line, from 1, in which a key is set or, failing that, the nearest table above it; 0 if there is none.

    Args:
        text: TOML.
        path: Keys, and indices of arrays.
    """
    best, best_depth = 0, 0
    tables: dict[tuple[str, ...], int] = {}
    here: Path = ()
    array: tuple[Path, int] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if array is not None:
            array, found = _within_array(line, array, path)
            if found:
                return number
            continue
        if header := _HEADER.match(line):
            names = tuple(_parts(header[2]))
            if header[1] == "[[":
                tables[names] = tables.get(names, -1) + 1
            here = _with_indices(names, tables)
            depth = _depth(here, path)
        elif key := _KEY.match(line):
            full = (*here, *_parts(key[1]))
            depth = _depth(full, path)
            if depth == len(full) == len(path) - 1 and isinstance(path[-1], int):
                array, found = _within_array(line[key.end() :], (full, 0), path)
                if found:
                    return number
        else:
            continue
        if depth > best_depth:
            best, best_depth = number, depth
    return best


def _place(path: Path, message: str) -> Path:
    """Where inside a list the fault is: validators of a whole list or table name the element in words."""
    if element := re.search(r"(?:pattern|word) (\d+) ", message):
        return (*path, int(element[1]) - 1)
    if named := re.search(r"(\w+) is always refused|role '(.+)' is to be", message):
        return (*path, named[1] or named[2])
    return path


def _within_array(line: str, array: tuple[Path, int], path: Path) -> tuple[tuple[Path, int] | None, bool]:
    """Count the strings of an array of strings that this line holds.

    Returns:
        Where the array stands after the line, None once it is closed; and whether the wanted element is in it.
    """
    full, seen = array
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|\]|#.*$', line):
        if token[0] == "]":
            return None, False
        if not token[0].startswith("#"):
            if seen == path[-1]:
                return None, True
            seen += 1
    return (full, seen), False


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in _PART.findall(dotted)]


def _with_indices(names: tuple[str, ...], tables: dict[tuple[str, ...], int]) -> Path:
    path: list[str | int] = []
    for depth in range(1, len(names) + 1):
        path.append(names[depth - 1])
        if names[:depth] in tables:
            path.append(tables[names[:depth]])
    return tuple(path)


def _depth(candidate: Path, path: Path) -> int:
    """How much of the path a candidate covers, 0 if it leads elsewhere."""
    return len(candidate) if candidate == path[: len(candidate)] else 0


def _dotted(path: Path) -> str:
    told = ""
    for part in path:
        told += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if told else part
    return told or "policy"


def _told(fault: Any, path: Path) -> str:
    """The fault in a sentence, with the closest names where a name is wrong."""
    name = str(path[-1]) if path else ""
    match fault["type"]:
        case "extra_forbidden":
            return f"there is no such key{_close(name, _keys(path))}"
        case "enum" if name == "action" or fault["input"] not in (None, name):
            choices: Sequence[str] = list(Action) if name == "action" else list(Category)
            return f"{fault['input']!r} is none of {', '.join(choices)}."
        case "enum":
            return f"there is no such category{_close(name, list(Category))}"
        case "literal_error" if name == "strictness":
            return f"{fault['input']!r} is none of {', '.join(get_args(Strictness))}."
        case "greater_than_equal" | "less_than_equal" if name == "threshold":
            return f"a threshold is a number from 0 to 1, not {fault['input']:g}."
        case "model_type" | "dict_type" | "tuple_type":
            shape = "a list in [ ]" if fault["type"] == "tuple_type" else "a table"
            return f"{fault['input']!r} stands where {shape} belongs."
        case _:
            return f"{fault['msg'].removeprefix('Value error, ')}."


def _keys(path: Path) -> list[str]:
    """The keys that the table has in which a path ends."""
    tables: dict[object, type[BaseModel]] = {
        "lists": WordList,
        "links": LinkRules,
        "categories": CategoryRule,
        "nsfw_channel": CategoryRule,
    }
    return list((tables.get(path[0], Policy) if len(path) > 1 else Policy).model_fields)


def _close(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}."
