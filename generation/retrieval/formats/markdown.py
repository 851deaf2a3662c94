"""Markdown to sections, by way of HTML, with the anchors that forges give to headings."""

from __future__ import annotations

import itertools
import re
from collections import Counter

from generation.retrieval.chunking import ParsedDocument
from generation.retrieval.formats.html import parse_html

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_NOT_IN_SLUG = re.compile(r"[^\w\- ]")


def parse_markdown(text: str) -> ParsedDocument:
    """Read Markdown; HTML inside it stays text."""
    from markdown_it import MarkdownIt

    front = _FRONT_MATTER.match(text)
    body = text[front.end() :] if front else text
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(body)
    seen: Counter[str] = Counter()
    for heading, inline in itertools.pairwise(tokens):
        if heading.type == "heading_open":
            slug = slug_of(inline.content)
            heading.attrSet("id", slug if not seen[slug] else f"{slug}-{seen[slug]}")
            seen[slug] += 1
    parsed = parse_html(parser.renderer.render(tokens, parser.options, {}))
    named = re.search(r"^title:\s*[\"']?(.+?)[\"']?\s*$", front.group(1), re.MULTILINE) if front else None
    return ParsedDocument(named.group(1) if named else parsed.title, parsed.sections, parsed.language)


def slug_of(heading: str) -> str:
    """The anchor that GitHub and GitLab give to a heading."""
    return _NOT_IN_SLUG.sub("", heading.strip().lower()).replace(" ", "-")
