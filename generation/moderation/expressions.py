"""Tenants' regular expressions: RE2, whose matching takes time linear in the text whatever the expression."""

from __future__ import annotations

import functools
from typing import Any

MAX_PATTERN_BYTES = 2**20


def check(pattern: str, number: int) -> None:
    """See that a pattern can be used.

    Args:
        pattern: An RE2 expression.
        number: Its place in its list, from 0, for the message.

    Raises:
        ValueError: It is no RE2 expression, or it matches the empty text, and so everything.
    """
    try:
        compiled = compiled_pattern(pattern)
    except ValueError as error:
        raise ValueError(f"pattern {number + 1} is no valid expression: {error}") from None
    if compiled.search("") is not None:
        raise ValueError(f"pattern {number + 1} matches the empty text: it would match everywhere")


@functools.lru_cache(maxsize=4096)
def compiled_pattern(pattern: str, *, ignore_case: bool = True) -> Any:
    """A compiled expression, with ``search`` and ``finditer``.

    Raises:
        ValueError: It is no RE2 expression: there are no back-references and no look-around.
    """
    import re2  # a native library that only tenants' lists and personal data need

    options = re2.Options()
    options.case_sensitive = not ignore_case
    options.log_errors = False
    options.max_mem = MAX_PATTERN_BYTES * 8
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else b""
        told = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(told) from None
