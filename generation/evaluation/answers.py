"""How well questions are answered from what is known: the right passage first, and no answer where there is none.

The knowledge is Debian's bilingual FAQ; the questions are paraphrases and outside questions that lie beside this
module, and people's own words from ``chitchat-dataset``. Weights were fitted on every second question; the others are
reported.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from generation.data_dir import default_data_dir
from generation.evaluation import faq
from generation.evaluation.answer_plots import Outcome, draw
from generation.evaluation.report import Figure, Report
from generation.learning.packages import Package, fetch
from generation.retrieval.answering import ANSWER_THRESHOLD, SUGGEST_THRESHOLD, answer
from generation.retrieval.embedding import DEFAULT_MODEL, load_embedder
from generation.retrieval.knowledge import Knowledge, TenantKnowledge
from generation.retrieval.sentences import sentences_of
from generation.retrieval.support import supported, unsupported
from generation.retrieval.types import Hit, Upload

CHITCHAT = Package(
    "pypi", "chitchat-dataset", "0.9.0", "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e", "MIT"
)
QUESTIONS = Path(__file__).with_name("answer_questions") / "questions.json"
#: Statements that their passages support, and statements that they do not: 100 of each, in English and Chinese.
SUPPORT = QUESTIONS.with_name("support.json")
CHITCHAT_QUESTIONS = 200
TARGETS = {("en", "en"): 0.85, ("zh", "zh"): 0.90, ("en", "zh"): 0.80, ("zh", "en"): 0.80}
Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and the sections that answer it; none, where the FAQ does not."""

    question: str
    language: str
    sections: frozenset[str]


def evaluate(model: str, downloads_dir: Path, store_dir: Path) -> tuple[Report, list[Outcome]]:
    """Measure an embedding model's answers.

    Args:
        model: Its name.
        downloads_dir: Where packages are kept.
        store_dir: Where the knowledge is put for the time of the measurement.
    """
    knowledge = Knowledge(f"sqlite:///{store_dir / 'evaluation.sqlite'}", load_embedder(model))
    asked, outside = _questions(downloads_dir)
    figures: list[Figure] = []
    outcomes: list[Outcome] = []
    for language in ("en", "zh"):
        pages = faq.pages(language, downloads_dir)
        whole, bodies = knowledge.tenant(f"faq-{language}"), knowledge.tenant(f"bodies-{language}")
        for name, content in pages.items():
            whole.add(Upload(name, content))
        for entry in faq.entries(pages):
            bodies.add(Upload(f"{entry.number}.txt", entry.text.encode()))
        figures += _paraphrases(whole, language, asked, outcomes)
        figures += _titles(bodies, language, downloads_dir)
        figures += _shown(whole, language, asked)
        outcomes += [Outcome(_best(whole, one.question), right=False, answerable=False) for one in outside]
    knowledge.close()
    figures += [*_refusals(outcomes), *_labelled()]
    return Report("palaver evaluate answers", f"model {model}", 0, tuple(figures)), outcomes


def _questions(downloads_dir: Path) -> tuple[list[Asked], list[Asked]]:
    """Those of the half that is reported."""
    held: dict[str, list[dict[str, Any]]] = json.loads(QUESTIONS.read_text("utf-8"))
    asked = [
        Asked(entry["question"], language, frozenset(entry["section"].split()))
        for language in ("en", "zh")
        for entry in [entry for entry in held["answerable"] if entry["language"] == language][1::2]
    ]
    outside = [Asked(entry["question"], entry["language"], frozenset()) for entry in held["outside"][1::2]]
    return asked, outside + [Asked(text, "en", frozenset()) for text in _chitchat(downloads_dir)]


def _chitchat(downloads_dir: Path) -> list[str]:
    """Questions that people asked one another, one of each conversation."""
    with zipfile.ZipFile(fetch(CHITCHAT, downloads_dir)) as wheel:
        dialogues = json.loads(wheel.read("chitchat_dataset/dataset.json"))
    firsts = (
        next((text for text in _texts(dialogue) if text.endswith("?") and 20 <= len(text) <= 200), None)
        for dialogue in dialogues.values()
    )
    return list(itertools.islice((text for text in firsts if text), CHITCHAT_QUESTIONS))


def _texts(dialogue: dict[str, Any]) -> Iterable[str]:
    return (message["text"] for turn in dialogue["messages"] for message in turn)


def _paraphrases(
    whole: TenantKnowledge, language: Language, asked: list[Asked], outcomes: list[Outcome]
) -> list[Figure]:
    figures: list[Figure] = []
    for spoken in ("en", "zh"):
        ours = [one for one in asked if one.language == spoken]
        firsts = fives = 0
        for one in ours:
            hits = whole.search(one.question, limit=5)
            found = [_section(hit) in one.sections for hit in hits]
            firsts += found[:1] == [True]
            fives += any(found)
            outcomes.append(Outcome(hits[0].score if hits else 0.0, right=found[:1] == [True], answerable=True))
        figures += _ranks(
            "paraphrases", f"{spoken} over {language}", firsts, fives, len(ours), TARGETS[spoken, language]
        )
    return figures


def _titles(bodies: TenantKnowledge, language: Language, downloads_dir: Path) -> list[Figure]:
    """Headings of either language as questions over bodies that have none."""
    figures: list[Figure] = []
    for spoken in ("en", "zh"):
        entries = faq.entries(faq.pages(spoken, downloads_dir))
        known = {document.title.removesuffix(".txt") for document in bodies.list()}
        ours = [entry for entry in entries if entry.number in known]
        found = [[hit.title.removesuffix(".txt") for hit in bodies.search(entry.question, 5)] for entry in ours]
        firsts = sum(numbers[:1] == [entry.number] for entry, numbers in zip(ours, found, strict=True))
        fives = sum(entry.number in numbers for entry, numbers in zip(ours, found, strict=True))
        group = f"{spoken} over {language}"
        figures += _ranks("headings over bodies", group, firsts, fives, len(ours), TARGETS[spoken, language])
    return figures


def _shown(whole: TenantKnowledge, language: Language, asked: list[Asked]) -> list[Figure]:
    """What is shown of the passages, and whether they say it."""
    shown = unsaid = chars = passage_chars = 0
    for one in asked:
        found = answer(one.question, whole)
        if found.decision != "answer":
            continue
        (citation,) = found.citations
        passage = next(hit.text for hit in whole.search(one.question, 1) if hit.chunk_id == citation.chunk_id)
        sentences = sentences_of(found.text.removesuffix(" [1]"))
        shown += len(sentences)
        unsaid += len(unsupported(found.text.removesuffix(" [1]"), (passage,)))
        chars, passage_chars = chars + len(citation.quote), passage_chars + len(passage)
    share = f"of {shown} sentences; wanted at most 0.02"
    return [
        Figure("unsupported sentences in answers", f"over {language}", unsaid / max(shown, 1), share),
        Figure("shown of the passages quoted", f"over {language}", chars / max(passage_chars, 1), "of their letters"),
    ]


def _labelled() -> list[Figure]:
    """The check of support against labels: the half that it was not made with."""
    pairs = json.loads(SUPPORT.read_text("utf-8"))[1::2]
    figures: list[Figure] = []
    for label, name in (("unsupported", "false statements that pass the check"), ("supported", "true ones that do")):
        for language in ("en", "zh"):
            passed = [
                supported(each, pair["passage"])
                for pair in pairs
                if pair["language"] == language
                for each in pair[label]
            ]
            figures.append(Figure(name, language, sum(passed) / len(passed), f"of {len(passed)} labelled"))
    return figures


def _ranks(name: str, group: str, firsts: int, fives: int, count: int, target: float) -> list[Figure]:
    return [
        Figure(f"{name}: top-1", group, firsts / max(count, 1), f"of {count}; wanted {target:.2f}"),
        Figure(f"{name}: top-5", group, fives / max(count, 1), f"of {count}; wanted 0.95"),
    ]


def _refusals(outcomes: list[Outcome]) -> list[Figure]:
    def share(of: Callable[[Outcome], bool], refused: Callable[[Outcome], bool]) -> tuple[float, int]:
        some = [outcome for outcome in outcomes if of(outcome)]
        return sum(refused(outcome) for outcome in some) / max(len(some), 1), len(some)

    outside, outside_count = share(lambda one: not one.answerable, lambda one: one.score < SUGGEST_THRESHOLD)
    answered, _ = share(lambda one: not one.answerable, lambda one: one.score >= ANSWER_THRESHOLD)
    inside, inside_count = share(lambda one: one.answerable, lambda one: one.score < SUGGEST_THRESHOLD)
    right, shown = share(lambda one: one.answerable and one.score >= ANSWER_THRESHOLD, lambda one: one.right)
    return [
        Figure("outside questions refused", "all", outside, f"of {outside_count}; wanted 0.95"),
        Figure("outside questions answered", "all", answered, f"of {outside_count}"),
        Figure("answerable questions refused", "all", inside, f"of {inside_count}; wanted at most 0.05"),
        Figure("answers shown that quote the right section", "all", right, f"of {shown}"),
    ]


def _best(knowledge: TenantKnowledge, question: str) -> float:
    hits = knowledge.search(question, limit=1)
    return hits[0].score if hits else 0.0


def _section(hit: Hit) -> str | None:
    return faq.number_of(hit.heading_path[-1]) if hit.heading_path else None


@click.command()
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="Embedding model, by name.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for answers.json and answers.png.")
def main(model: str, out: Path | None) -> None:
    """Measure answers: the right passage first, across languages too, and refusals of what is not known."""
    data_dir = Path(os.environ.get("PALAVER_DATA_DIR") or default_data_dir())
    out = out or data_dir / "evaluation"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as store_dir:
        report, outcomes = evaluate(model, data_dir / "downloads", Path(store_dir))
    report.write(out / "answers.json")
    draw(outcomes, ANSWER_THRESHOLD, SUGGEST_THRESHOLD, out / "answers.png")
    click.echo(report.table())
    click.echo(f"Confusion and calibration: {out / 'answers.png'}")
