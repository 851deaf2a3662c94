"""When somebody wants a person: asked for, angry, or on a topic of the team's own; in English and Chinese."""

from __future__ import annotations

import re
from collections.abc import Sequence

from generation.retrieval.sentences import sentences_of

_PERSON = re.compile(
    r"\b(?:(?:talk|speak|chat|connect|transfer|get|give|want|need|put)\b.{0,30}\b"
    r"(?:human|person|agent|representative|operator|somebody|someone|staff)"
    r"|(?:real|live|actual) (?:human|person|agent))\b"
    r"|^\W*(?:human|agent|operator|representative)\W*$"
    r"|人工|真人|转客服|找客服",
    re.IGNORECASE,
)
_ANGER = re.compile(
    r"\b(?:ridiculous|unacceptable|outrageous|furious|useless (?:bot|thing|machine|service)|worst (?:service|support)"
    r"|fed up|waste of time|this is (?:a joke|insane|bullshit)|scam(?:mers)?|sue you|i am (?:so |really )?angry"
    r"|what the (?:hell|fuck)|bullshit)\b|垃圾|太差了|气死|投诉|骗子|忍无可忍|什么破",
    re.IGNORECASE,
)
_SHOUTED = re.compile(r"[A-Z]{2,}")
_LEAST_SHOUTED = 4


def wants_person(text: str) -> bool:
    """Whether somebody asks for a person."""
    return bool(_PERSON.search(text))


def without_request(text: str) -> str:
    """A text without the sentences that only ask for a person: what is left is what it is about."""
    return " ".join(sentence for sentence in sentences_of(text) if not wants_person(sentence))


def is_angry(text: str) -> bool:
    """Whether somebody is angry: by their words, or because most of them are shouted."""
    words = re.findall(r"[A-Za-z]{2,}", text)
    shouted = sum(bool(_SHOUTED.fullmatch(word)) for word in words)
    return bool(_ANGER.search(text)) or (shouted >= _LEAST_SHOUTED and shouted > len(words) * 0.7)


def topic_of(text: str, topics: Sequence[str]) -> str | None:
    """The listed topic that a text is about; None for none."""
    lowered = text.casefold()
    for topic in topics:
        wanted = topic.strip().casefold()
        word = re.escape(wanted)
        # Chinese has no spaces between words; in other scripts "art" is not about "party".
        if wanted and re.search(rf"\b{word}\b" if wanted.isascii() else word, lowered):
            return topic.strip()
    return None
