"""How close a generated answer is to the approved one, in words and in meaning."""

from __future__ import annotations

import re
from collections.abc import Sequence

from generation.errors import ModelNotFoundError
from generation.moderation.spelling import fold

#: A cosine of multilingual USE vectors from which two sentences say the same: what ``generation.retrieval`` takes for
#: near-duplicates lies above, unrelated answers about one product lie at 0.2 to 0.5.
SAME_MEANING = 0.75
_WORD = re.compile(r"[぀-ヿ㐀-䶿一-鿿豈-﫿]|[^\W_]+")


def words(text: str) -> list[str]:
    """Lower-case words; each Chinese character or Japanese kana is one, for there are no spaces between words."""
    return _WORD.findall(fold(text).text)


def bleu(given: Sequence[str], wanted: Sequence[str]) -> float:
    """Corpus BLEU, 0 to 100. Source: Post, "A Call for Clarity in Reporting BLEU Scores", 2018 (sacrebleu)."""
    from sacrebleu.metrics.bleu import BLEU

    han = sum(bool(re.search(r"[㐀-鿿]", text)) for text in wanted)
    scorer = BLEU(tokenize="zh" if 2 * han > len(wanted) else "13a", effective_order=True)
    return float(scorer.corpus_score(list(given), [list(wanted)]).score)


def rouge_l(given: str, wanted: str) -> float:
    """F-measure of the longest common subsequence of words, 0 to 1.

    Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004.
    """
    one, other = words(given), words(wanted)
    if not one or not other:
        return float(one == other)
    row = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for place, against in enumerate(other, 1):
            above = row[place]
            row[place] = diagonal + 1 if word == against else max(above, row[place - 1])
            diagonal = above
    return 2 * row[-1] / (len(one) + len(other))


def exact(given: str, wanted: str) -> bool:
    """Whether both are the same but for case, spaces and punctuation."""
    return words(given) == words(wanted)


def similarities(given: Sequence[str], wanted: Sequence[str]) -> list[float] | None:
    """Cosines of the sentence vectors of each pair; None where no sentence encoder is installed."""
    from generation.retrieval.embedding import load_embedder

    try:
        encoder = load_embedder()
        one, other = encoder.encode(list(given)), encoder.encode(list(wanted))
    except (ModelNotFoundError, ImportError):
        return None
    return [float(value) for value in (one * other).sum(axis=1)]
