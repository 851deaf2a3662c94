"""How an answer from knowledge is shown: what it quotes without its mark-up, and its sources as the only links."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import quote

from bots.service import Prompt
from workers.contract import AnswerReport, CitationRef, ReplyTo

#: Handle field of jobs that are answered from knowledge: whoever delivers one must not show its text as Markdown.
ANSWER = "answer"

_ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]{1,15}://|www\.)[^\s<>`\"'()\[\]]+", re.IGNORECASE)
_MARKUP = re.compile(r"([\\`*_~|\[\]<>])")
_LINE_START = re.compile(r"(?m)^(\s{0,3})(#|-#|>)")
_SOURCES = {"en": "Sources", "zh": "来源"}
_LONGEST_TITLE_CHARS = 160
_HAN = re.compile(r"[\u4e00-\u9fff]")


def answering(prompt: Prompt) -> Prompt:
    """The same prompt, to be answered from what its tenant knows."""
    handle = {**prompt.reply.handle, ANSWER: "1"}
    return replace(prompt, kind="answer", reply=prompt.reply.model_copy(update={"handle": handle}))


def is_answer(reply: ReplyTo) -> bool:
    """Whether a job is answered from knowledge."""
    return ANSWER in reply.handle


def inert(text: str) -> str:
    """Text of a document as Markdown that shows it as it stands: no emphasis, no links, nobody is mentioned.

    Addresses become code, which no platform makes a link of.
    """
    parts: list[str] = []
    end = 0
    for found in _ADDRESS.finditer(text):
        parts += (_escaped(text[end : found.start()]), f"`{found.group()}`")
        end = found.end()
    return "".join([*parts, _escaped(text[end:])])


def shown(text: str, report: AnswerReport | None) -> str:
    """An answer in Markdown: what it says, and below it where that stands.

    Args:
        text: As the job wrote it.
        report: What it stands on; None while it grows.
    """
    said = inert(text.strip())
    if report is None or not report.citations:
        return said
    title = _SOURCES["zh" if is_chinese(text) else "en"]
    return "\n".join([said, "", f"**{title}**", *(_source(each) for each in report.citations)])


def sources(report: AnswerReport) -> list[str]:
    """The sources in plain text, for a terminal."""
    return [
        f"[{each.number}] {place(each)}" + (f"  {address(each)}" if address(each) else "") for each in report.citations
    ]


def place(citation: CitationRef) -> str:
    """Title, headings and page: where in which document."""
    parts = dict.fromkeys([citation.title, *citation.heading_path])
    page = f", p. {citation.page}" if citation.page is not None else ""
    named = " › ".join(" ".join(part.split()) for part in parts if part.strip())
    return named[:_LONGEST_TITLE_CHARS] + page


def address(citation: CitationRef) -> str:
    """The document's own address with the place in it; empty if it has none that a person can open."""
    if not citation.address:
        return ""
    fragment = citation.anchor or (f"page={citation.page}" if citation.page is not None else "")
    return citation.address + (f"#{quote(fragment, safe='=:.-_~')}" if fragment else "")


def is_chinese(text: str) -> bool:
    """Whether a text is Chinese."""
    return bool(_HAN.search(text))


def _source(citation: CitationRef) -> str:
    where = address(citation)
    name = _escaped(place(citation)) or f"{citation.number}"
    # A file on the operator's disk can be opened by nobody here, and its path is nobody's business.
    if not where.startswith(("https://", "http://")):
        return f"\\[{citation.number}\\] {name}"
    safe = quote(where, safe=":/?#@!$&'*+,;=%~-._")
    return f"\\[{citation.number}\\] [{name}]({safe})"


def _escaped(text: str) -> str:
    return _LINE_START.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", text))
