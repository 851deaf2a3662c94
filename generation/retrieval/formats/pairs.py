"""CSV of questions and answers: one section a row, its heading the question."""

from __future__ import annotations

import csv
import io

from generation.errors import UnreadableDocumentError
from generation.retrieval.chunking import ParsedDocument, Section

MAX_ROWS = 100_000
_MARKS = (",", ";", "\t", "|")
_QUESTION = frozenset(["question", "questions", "q", "\u95ee\u9898", "\u554f\u984c", "\u95ee", "\u63d0\u95ee"])
_ANSWER = frozenset(["answer", "answers", "a", "\u7b54\u6848", "\u56de\u7b54", "\u7b54", "\u56de\u590d"])


def parse_pairs(text: str) -> ParsedDocument:
    """Read rows of a question and an answer; the first row names the columns, in English or Chinese.

    Args:
        text: With commas, semicolons, tabs or bars between columns.

    Raises:
        UnreadableDocumentError: The columns are not named, or a row is broken.
    """
    first = text.lstrip("\n").split("\n", 1)[0]
    names = {mark: [name.strip().casefold() for name in next(csv.reader([first], delimiter=mark))] for mark in _MARKS}
    # What divides columns is what makes the first row name them; statistics of the rows err where answers have commas.
    divided = [mark for mark in _MARKS if _column(names[mark], _QUESTION) is not None]
    question = _column(names[divided[0]], _QUESTION) if divided else None
    answer = _column(names[divided[0]], _ANSWER) if divided else None
    if question is None or answer is None:
        raise UnreadableDocumentError(
            "its first row must name a column question (\u95ee\u9898) and a column answer (\u7b54\u6848)"
        )
    rows = csv.reader(io.StringIO(text.lstrip("\n"), newline=""), delimiter=divided[0])
    try:
        next(rows)
        sections = []
        for row in rows:
            if len(row) > max(question, answer) and row[question].strip() and row[answer].strip():
                sections.append(Section((row[question].strip(),), (row[answer].strip(),)))
            if rows.line_num > MAX_ROWS:
                raise UnreadableDocumentError(f"it has more than {MAX_ROWS:,} lines")
    except csv.Error as error:
        raise UnreadableDocumentError(f"line {rows.line_num} of it is broken: {error}") from error
    return ParsedDocument("", tuple(sections))


def _column(names: list[str], wanted: frozenset[str]) -> int | None:
    return next((place for place, name in enumerate(names) if name in wanted), None)
