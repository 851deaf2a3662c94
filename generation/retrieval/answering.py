"""A question to an answer that quotes what is known, or says that it is not known."""

from __future__ import annotations

import re
from collections.abc import Sequence

from generation.retrieval import templates
from generation.retrieval.knowledge import TenantKnowledge
from generation.retrieval.quoting import sentences_in, trimmed, worth_trimming
from generation.retrieval.support import unsupported
from generation.retrieval.templates import Template
from generation.retrieval.types import Answer, Citation, Hit

ANSWER_THRESHOLD = 0.5
#: Below it the question is taken to be about something else; chosen on the half of the questions of ``palaver evaluate
#: answers`` that is not reported.
SUGGEST_THRESHOLD = 0.18
MAX_SUGGESTIONS = 3
#: A question of so few words names no topic of its own.
_SHORT_WORDS = 3
#: Most questions before that a follow-up is understood from: the topic, and what was said of it since.
_TOPIC_QUESTIONS = 4
_FOLLOW_UP = re.compile(
    r"(?:and|or|but|also|then|what about|how about|what if|in|for|to|with)\b"
    r"|\u90a3|\u8fd8\u6709|\u5982\u679c|.{0,8}\u5462",  # that, also, if; and a question's particle, in Chinese
    re.IGNORECASE,
)


def answer(question: str, knowledge: TenantKnowledge, conversation: Sequence[str] = ()) -> Answer:
    """Answer a question from what a tenant knows, by quoting the best passage or in words approved for it.

    Args:
        question: What was asked.
        knowledge: What the tenant knows.
        conversation: What the same person asked before, oldest first: "and in China?" is understood from it, and what
            it says of a template's slots is not asked again.
    """
    hits = _best(knowledge, question, conversation)
    best = hits[0].score if hits else 0.0
    answer_at, suggest_at = knowledge.thresholds()
    answer_at = ANSWER_THRESHOLD if answer_at is None else answer_at
    said = (question, *reversed(conversation))
    if best < answer_at and conversation:
        waiting = _waiting(knowledge, question, conversation, answer_at)
        if waiting is not None:
            return _from_template(*waiting, said)
    if best >= answer_at:
        template = _template(knowledge, hits[0])
        return _quoted(knowledge, question, hits[0]) if template is None else _from_template(template, hits[0], said)
    if best >= (SUGGEST_THRESHOLD if suggest_at is None else suggest_at):
        return Answer("did_you_mean", "", (), _suggestions(hits), best)
    return Answer("unknown", "", (), (), best)


def _quoted(knowledge: TenantKnowledge, question: str, hit: Hit) -> Answer:
    """The best passage, trimmed; nothing is shown that the passage does not say."""
    sentences = sentences_in(hit.text) if worth_trimming(hit.text) else []
    cosines = knowledge.resemblance(question, sentences) if len(sentences) > 1 else []
    quote = trimmed(question, hit.text, sentences if cosines else [], cosines)
    if unsupported(quote.text, (hit.text,)):
        return Answer("unknown", "", (), (), hit.score)
    return Answer("answer", f"{quote.shown} [1]", (_citation(1, hit, quote.text),), (), hit.score)


def _from_template(template: Template, hit: Hit, said: Sequence[str]) -> Answer:
    """Word for word what was approved, with what was said in its slots; or a question for what is missing."""
    text, missing = template.filled(said)
    if missing is not None:
        return Answer("ask", missing.ask, (), (), hit.score)
    return Answer("answer", f"{text} [1]", (_citation(1, hit, text),), (), hit.score)


def _template(knowledge: TenantKnowledge, hit: Hit) -> Template | None:
    document = knowledge.document(hit.document_id)
    return templates.from_metadata(document.metadata) if document is not None else None


def _waiting(
    knowledge: TenantKnowledge, question: str, conversation: Sequence[str], answer_at: float
) -> tuple[Template, Hit] | None:
    """The template that waits for what is said now, if the one before this asked for something."""
    for before in list(reversed(conversation))[:_TOPIC_QUESTIONS]:
        hits = knowledge.search(before, limit=1)
        if not hits or hits[0].score < answer_at:
            continue
        template = _template(knowledge, hits[0])
        return (template, hits[0]) if template is not None and template.fills(question) else None
    return None


def _best(knowledge: TenantKnowledge, question: str, conversation: Sequence[str]) -> Sequence[Hit]:
    """What is found for a question as it stands; of one that leans on others, with the topic before it."""
    alone = knowledge.search(question, limit=5)
    if not conversation or not _leans(question):
        return alone
    together = knowledge.search(f"{_topic(conversation)} {question}", limit=5)
    score = {hit.chunk_id: hit.score for hit in alone}
    # The topic brings candidates; what is new in the question decides among them.
    return sorted(together or alone, key=lambda hit: -(hit.score + score.get(hit.chunk_id, 0.0)))


def _topic(conversation: Sequence[str]) -> str:
    """The last question that names a topic; a follow-up to a follow-up is about the same."""
    recent = list(conversation[-_TOPIC_QUESTIONS:])
    return next((each for each in reversed(recent) if not _leans(each)), recent[-1])


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
