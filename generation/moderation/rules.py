"""The first stage: everything that can be decided about a text without a model, in microseconds.

Runs at the front-end on what was asked, and in the engine process on what was answered. Imports no model library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from generation.moderation import absolute, personal_data
from generation.moderation.built_in import BUILT_IN
from generation.moderation.chinese import chinese_matcher
from generation.moderation.policy import EffectivePolicy, WordList
from generation.moderation.spelling import Folded, Piece, as_shown, fold, is_han, pieces, plain
from generation.moderation.types import Action, Category, Decision, Finding, Span, Stage
from generation.moderation.words import list_version, matcher

#: Of the rules that are part of the product; lists carry a version of their own.
RULES_VERSION = "1"

_LINK = re.compile(
    r"(?:https?://|www\.)(?P<host>[^\s/?#<>\"')\]]+)|(?<![\w@.-])(?P<bare>(?:[a-z0-9-]+\.)+"
    r"(?:com|net|org|io|gg|ru|cn|xyz|top|info|biz|app|dev|me|co|shop|site|online|link|club))(?![\w.-])(?:/\S*)?"
)


def check_text(text: str, policy: EffectivePolicy, stage: Stage = "prompt") -> Decision:
    """Decide about a text by rules.

    Args:
        text: What was written, or a sentence of an answer.
        policy: What its tenant wants.
        stage: What kind of text it is; length is a matter of prompts.
    """
    return policy.decide(stage, findings(text, policy, stage))


def check_attachments(names: Sequence[str], policy: EffectivePolicy) -> Decision:
    """Decide about attachments by the endings of their names.

    Args:
        names: File names.
        policy: What the tenant accepts.
    """
    accepted = {ending.lower().lstrip(".") for ending in policy.attachments}
    wrong = [name for name in names if name.rpartition(".")[2].lower() not in accepted or "." not in name]
    return policy.decide("prompt", [_finding(Category.ATTACHMENTS, "attachments")] if wrong else [])


def findings(text: str, policy: EffectivePolicy, stage: Stage) -> Iterator[Finding]:
    """What the rules see in a text."""
    if stage == "prompt" and len(text) > policy.max_prompt_chars:
        yield _finding(Category.LENGTH, "length")
        return  # whatever else is in it, it is not read
    folded = fold(text)
    parts = pieces(folded.text)
    for category, start, end in absolute.find(folded.text):
        yield _finding(category, "absolute", (_span(folded, start, end),))
    for category, _, _ in absolute.find(said) if (said := _in_plain_letters(folded.text, parts)) else ():
        yield _finding(category, "absolute")
    yield from _list_findings(text, folded, parts, policy)
    yield from _personal_findings(folded)
    yield from _link_findings(folded, policy)


def _in_plain_letters(folded: str, parts: Sequence[Piece]) -> str:
    """What a text with disguised words says; empty if it has none."""
    disguised = [part for part in parts if part.readings and part.readings[0] != part.raw]
    if not disguised:
        return ""
    told: list[str] = []
    at = 0
    for part in disguised:
        told += (folded[at : part.start], part.readings[0])
        at = part.end
    return "".join((*told, folded[at:]))


def _list_findings(text: str, folded: Folded, parts: Sequence[Piece], policy: EffectivePolicy) -> Iterator[Finding]:
    # The built-in lists do not look for pinyin in texts without a Chinese character.
    built_in = BUILT_IN if any(map(is_han, folded.text)) else ()
    turned = as_shown(text)
    read = [(folded, parts)] + ([(turned, pieces(turned.text))] if turned else [])
    for words in (*policy.lists, *built_in):
        listed = matcher(words)
        spans = [_span(each, match.start, match.end) for each, cut in read for match in listed.find(each, cut)]
        if listed.has_patterns:
            forms = [folded] if text.isascii() else [folded, plain(text)]
            spans += [_span(form, match.start, match.end) for form in forms for match in listed.find_patterns(form)]
        chinese = chinese_matcher(words, policy.chinese_homophones)
        spans += [_span(folded, start, end) for start, end in chinese.find(folded)]
        if spans:
            yield _list_finding(words, tuple(spans))


def _list_finding(words: WordList, spans: tuple[Span, ...]) -> Finding:
    action = None if words.action is Action.ALLOW else words.action
    return Finding(words.category, 1.0, f"rule:{words.name}", list_version(words), spans, action=action)


def _personal_findings(folded: Folded) -> Iterator[Finding]:
    found: dict[Category, list[Span]] = {}
    names: dict[Category, str] = {}
    for category, name, span in personal_data.find(folded.text):
        found.setdefault(category, []).append(_span(folded, span.start, span.end, span.mask))
        names.setdefault(category, name)
    for category, spans in found.items():
        yield _finding(category, names[category].lower().replace(" ", "-"), tuple(spans))


def _link_findings(folded: Folded, policy: EffectivePolicy) -> Iterator[Finding]:
    if "." not in folded.text:
        return
    allowed = policy.links.allowed_domains
    spans = []
    for match in _LINK.finditer(folded.text):
        host = (match["host"] or match["bare"]).rpartition("@")[2].partition(":")[0].strip(".")
        if not any(host == domain.lower() or host.endswith(f".{domain.lower()}") for domain in allowed):
            spans.append(_span(folded, match.start(), match.end(), "[link]"))
    if spans:
        yield _finding(Category.LINKS, "links", tuple(spans))


def _finding(category: Category, rule: str, spans: tuple[Span, ...] = ()) -> Finding:
    return Finding(category, 1.0, f"rule:{rule}", RULES_VERSION, spans)


def _span(folded: Folded, start: int, end: int, mask: str = "***") -> Span:
    return Span(*folded.span(start, end), mask)
