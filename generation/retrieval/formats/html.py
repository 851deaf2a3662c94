"""HTML to sections: headings, anchors and paragraphs of what a person would read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from generation.retrieval.chunking import ParsedDocument, Section

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_IGNORED = frozenset(
    """
    script style noscript template nav footer aside form button iframe svg head -comment object select canvas
    video audio
    """.split()  # noqa: SIM905 - so many quotes are hard to read
)
_BLOCKS = frozenset(
    """
    p div section article main li ul ol dl dt dd table tr pre blockquote figure figcaption body html header hr
    address details summary caption
    """.split()  # noqa: SIM905 - so many quotes are hard to read
)
_SPACE = re.compile(r"[ \t\r\n\u00a0]+")
#: A line break between Chinese or Japanese characters is no space.
_BETWEEN_HAN = re.compile(
    r"(?<=[\u3000-\u303f\u3040-\u30ff\u3400-\u9fff\uff00-\uffef]) "
    r"(?=[\u3000-\u303f\u3040-\u30ff\u3400-\u9fff\uff00-\uffef])"
)
_NAVIGATION_CLASSES = frozenset(["navheader", "navfooter", "toc", "navbar", "sidebar", "breadcrumb", "breadcrumbs"])


def parse_html(html: str) -> ParsedDocument:
    """Read a page: boilerplate such as navigation and scripts is left out.

    Args:
        html: The page, or a fragment of one.
    """
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(html)
    reader = _Reader()
    root = tree.css_first("main") or tree.body
    if root is not None:
        for node, leaving in _walk(root):
            reader.leave(node) if leaving else reader.enter(node)
    reader.finish()
    title_node = tree.css_first("title")
    own_title = _clean(title_node.text()) if title_node is not None else ""
    root_node = tree.root
    language = (root_node.attributes.get("lang") or "") if root_node is not None else ""
    return ParsedDocument(own_title or reader.first_heading, tuple(reader.sections), language[:2].lower() or None)


def _walk(root: LexborNode) -> Iterator[tuple[LexborNode, bool]]:
    """Nodes in reading order, each when it is entered and when it is left; without recursion, for nesting is input."""
    stack: list[tuple[LexborNode, bool]] = [(root, False)]
    while stack:
        node, leaving = stack.pop()
        if not leaving and _is_ignored(node):
            continue
        yield node, leaving
        if not leaving:
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(list(node.iter(include_text=True))))


def _is_ignored(node: LexborNode) -> bool:
    if node.tag == "-text":
        return False
    if node.tag in _IGNORED:
        return True
    attributes = node.attributes
    classes = set((attributes.get("class") or "").lower().split())
    return "hidden" in attributes or bool(classes & _NAVIGATION_CLASSES)


class _Reader:
    """Gathers sections while the tree is walked."""

    def __init__(self) -> None:
        self.sections: list[Section] = []
        self.first_heading = ""
        self._path: list[tuple[int, str]] = []
        self._paragraphs: list[str] = []
        self._text: list[str] = []
        self._anchor: str | None = None
        self._heading: int | None = None
        self._heading_anchor: str | None = None
        self._pending_anchor: str | None = None
        self._preformatted = 0

    def enter(self, node: LexborNode) -> None:
        """A node begins."""
        tag = node.tag or ""
        if tag == "-text":
            self._text.append(
                node.text_content or "" if self._preformatted else _SPACE.sub(" ", node.text_content or "")
            )
            return
        anchor = node.attributes.get("id") or (node.attributes.get("name") if tag == "a" else None)
        if tag in _HEADINGS:
            self._flush()
            self._heading = _HEADINGS[tag]
            self._heading_anchor = anchor or self._pending_anchor
        elif self._heading is not None:
            self._heading_anchor = self._heading_anchor or anchor
        else:
            self._pending_anchor = anchor or self._pending_anchor
            if tag in _BLOCKS:
                self._flush()
            elif tag in ("td", "th"):
                self._text.append(" ")
        if tag == "pre":
            self._preformatted += 1
        elif tag == "br":
            self._text.append("\n")

    def leave(self, node: LexborNode) -> None:
        """A node ends."""
        tag = node.tag or ""
        if tag == "pre":
            self._flush()
            self._preformatted -= 1
        elif tag in _HEADINGS and self._heading is not None:
            self._begin_section(self._heading, _clean("".join(self._text)))
            self._text, self._heading = [], None
        elif tag in _BLOCKS and self._heading is None:
            self._flush()

    def finish(self) -> None:
        """The document ends."""
        self._flush()
        self._close()

    def _begin_section(self, level: int, heading: str) -> None:
        self._close()
        if not heading:
            return
        self.first_heading = self.first_heading or heading
        self._path = [(other, text) for other, text in self._path if other < level] + [(level, heading)]
        self._anchor = self._heading_anchor
        self._pending_anchor = None

    def _flush(self) -> None:
        text = "".join(self._text)
        text = text.strip("\n") if self._preformatted else _clean(text)
        if text.strip():
            self._paragraphs.append(text)
        self._text = []

    def _close(self) -> None:
        if self._paragraphs:
            path = tuple(text for _, text in self._path)
            self.sections.append(Section(path, tuple(self._paragraphs), self._anchor))
        self._paragraphs = []


def _clean(text: str) -> str:
    text = _BETWEEN_HAN.sub("", text)
    return "\n".join(line for line in (_SPACE.sub(" ", line).strip() for line in text.split("\n")) if line)
