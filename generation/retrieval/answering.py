"""A question to an answer that quotes what is known, or says that it is not known."""

from __future__ import annotations

import re
from collections.abc import Sequence

from generation.retrieval.knowledge import TenantKnowledge
from generation.retrieval.types import Answer, Citation, Hit

ANSWER_THRESHOLD = 0.5
#: Below it the question is taken to be about something else; from ``palaver evaluate answers``.
SUGGEST_THRESHOLD = 0.24
MAX_QUOTE_CHARS = 600
MAX_SUGGESTIONS = 3
#: A question of so few words names no topic of its own.
_SHORT_WORDS = 3
_FOLLOW_UP = re.compile(
    r"(?:and|or|but|also|then|what about|how about|what if|in|for|to|with)\b"
    r"|\u90a3|\u8fd8\u6709|\u5982\u679c|.{0,8}\u5462",  # that, also, if; and a question's particle, in Chinese
    re.IGNORECASE,
)


def answer(question: str, knowledge: TenantKnowledge, conversation: Sequence[str] = ()) -> Answer:
    """Answer a question from what a tenant knows, by quoting the best passage.

    Args:
        question: What was asked.
        knowledge: What the tenant knows.
        conversation: What the same person asked before, oldest first: "and in China?" is understood from it.
    """
    hits = _best(knowledge, question, conversation)
    best = hits[0].score if hits else 0.0
    answer_at, suggest_at = knowledge.thresholds()
    if best >= (ANSWER_THRESHOLD if answer_at is None else answer_at):
        quote = hits[0].text[:MAX_QUOTE_CHARS]
        return Answer("answer", f"{quote} [1]", (_citation(1, hits[0], quote),), (), best)
    if best >= (SUGGEST_THRESHOLD if suggest_at is None else suggest_at):
        return Answer("did_you_mean", "", (), _suggestions(hits), best)
    return Answer("unknown", "", (), (), best)


def _best(knowledge: TenantKnowledge, question: str, conversation: Sequence[str]) -> Sequence[Hit]:
    """What is found for a question as it stands; of one that leans on another, with the topic before it."""
    alone = knowledge.search(question, limit=5)
    if not conversation or not _leans(question):
        return alone
    together = knowledge.search(f"{conversation[-1]} {question}", limit=5)
    score = {hit.chunk_id: hit.score for hit in alone}
    # The topic brings candidates; what is new in the question decides among them.
    return sorted(together or alone, key=lambda hit: -(hit.score + score.get(hit.chunk_id, 0.0)))


def _leans(question: str) -> bool:
    """Whether a question is not understood without the one before it."""
    return bool(_FOLLOW_UP.match(question.strip())) or (question.isascii() and len(question.split()) <= _SHORT_WORDS)


def _citation(number: int, hit: Hit, quote: str) -> Citation:
    return Citation(
        number, hit.chunk_id, hit.document_id, hit.title, hit.heading_path, hit.anchor, hit.address, quote, hit.page
    )


def _suggestions(hits: Sequence[Hit]) -> tuple[str, ...]:
    names = dict.fromkeys((hit.heading_path or (hit.title,))[-1] for hit in hits)
    return tuple(names)[:MAX_SUGGESTIONS]
