"""Words that look bad and are not: the Scunthorpe problem, and words that others fall apart into."""

from __future__ import annotations

from importlib import resources


def read_list(name: str) -> list[str]:
    """The entries of a list that is part of the product, in its order.

    Args:
        name: A file of ``generation/moderation/lists``.
    """
    text = resources.files("generation.moderation").joinpath("lists", name).read_text("utf-8")
    return [entry for line in text.splitlines() if not line.startswith("#") for entry in line.split()]


_ENTRIES = read_list("innocent.txt")

#: Never matched, whatever a list's wildcards say, unless a list names the very word.
INNOCENT: frozenset[str] = frozenset(entry for entry in _ENTRIES if "+" not in entry)

#: Innocent in company.
INNOCENT_PHRASES: tuple[tuple[str, ...], ...] = tuple(tuple(entry.split("+")) for entry in _ENTRIES if "+" in entry)

#: Words by themselves: what falls apart into these alone was not split by anybody.
COMMON: frozenset[str] = frozenset(read_list("common.txt"))
