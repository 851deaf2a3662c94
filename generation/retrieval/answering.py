"""A question to an answer that quotes what is known, or says that it is not known."""

from __future__ import annotations

from collections.abc import Sequence

from generation.retrieval.knowledge import TenantKnowledge
from generation.retrieval.types import Answer, Citation, Hit

ANSWER_THRESHOLD = 0.5
SUGGEST_THRESHOLD = 0.2
MAX_QUOTE_CHARS = 600
MAX_SUGGESTIONS = 3


def answer(question: str, knowledge: TenantKnowledge, conversation: Sequence[str] = ()) -> Answer:
    """Answer a question from what a tenant knows, by quoting the best passage.

    Args:
        question: What was asked.
        knowledge: What the tenant knows.
        conversation: What the same person asked before, oldest first: "and in China?" is understood from it.
    """
    hits = knowledge.search(question, limit=5)
    best = hits[0].score if hits else 0.0
    answer_at, suggest_at = knowledge.thresholds()
    if best >= (ANSWER_THRESHOLD if answer_at is None else answer_at):
        quote = hits[0].text[:MAX_QUOTE_CHARS]
        return Answer("answer", f"{quote} [1]", (_citation(1, hits[0], quote),), (), best)
    if best >= (SUGGEST_THRESHOLD if suggest_at is None else suggest_at):
        return Answer("did_you_mean", "", (), _suggestions(hits), best)
    return Answer("unknown", "", (), (), best)


def _citation(number: int, hit: Hit, quote: str) -> Citation:
    return Citation(
        number, hit.chunk_id, hit.document_id, hit.title, hit.heading_path, hit.anchor, hit.address, quote, hit.page
    )


def _suggestions(hits: Sequence[Hit]) -> tuple[str, ...]:
    names = dict.fromkeys((hit.heading_path or (hit.title,))[-1] for hit in hits)
    return tuple(names)[:MAX_SUGGESTIONS]
