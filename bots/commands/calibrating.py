"""``palaver knowledge calibrate``: thresholds from a tenant's own questions."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bots import settings
from bots.commands.opened import JSON, TENANT, opened
from bots.handover.opening import LateStore
from generation.errors import InvalidRequestError

if TYPE_CHECKING:
    from generation.retrieval.calibration import Judged
    from generation.retrieval.knowledge import TenantKnowledge


@click.command("calibrate")
@click.option(
    "--questions", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with the columns question and expected; expected is a heading, title or words of the passage that "
    "answers, and empty where nothing does.",
)  # fmt: skip
@click.option("--reset", is_flag=True, help="Go back to the thresholds that come with Palaver.")
@TENANT
@JSON
def command(questions: Path | None, reset: bool, tenant: str, as_json: bool) -> None:
    """Set from which score a tenant's questions are answered, from people's opinions and from a file of questions.

    People's opinions are those of the buttons below answers; approved pairs count as answered rightly if they are
    found. At least 95 of 100 answers shown are to be right, and at most 5 of 100 answerable questions refused.
    """
    from generation.retrieval.calibration import calibrated

    with opened(tenant, searching=True) as knowledge:
        if reset:
            knowledge.set_thresholds(None, None)
            click.echo("The thresholds are those that come with Palaver.")
            return
        judged = [*_of_people(knowledge, tenant), *(_of_file(knowledge, questions) if questions else ())]
        found = calibrated(judged)
        knowledge.set_thresholds(found.answer, found.suggest)
    told = {name: getattr(found, name) for name in found.__slots__} | {"questions": len(judged)}
    click.echo(
        json.dumps(told)
        if as_json
        else f"Answers from {found.answer:.2f}, suggestions from {found.suggest:.2f}, by {len(judged)} questions: "
        f"{found.shown:.0%} get an answer, {found.right:.0%} of them rightly; {found.refused:.0%} of the answerable "
        f"and {found.outside_refused:.0%} of the others are refused."
    )


def _of_people(knowledge: TenantKnowledge, tenant: str) -> Iterator[Judged]:
    from generation.retrieval.calibration import Judged

    late = LateStore(settings.load())
    if not late.is_there:
        return
    store = late.open()
    for asked in store.opinions(tenant):
        good = asked.helpful > asked.unhelpful
        hits = knowledge.search(asked.question, limit=1)
        yield Judged(hits[0].score if hits else 0.0, good, good)
    for draft in store.drafts(tenant, "approved"):
        hits = knowledge.search(draft.question, limit=1)
        right = bool(hits) and draft.answer[:40] in hits[0].text
        yield Judged(hits[0].score if hits else 0.0, right, answerable=True)


def _of_file(knowledge: TenantKnowledge, path: Path) -> Iterator[Judged]:
    from generation.retrieval.calibration import Judged

    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"question", "expected"} <= set(rows.fieldnames or ()):
            raise InvalidRequestError(f"{path.name}: the first line has to name the columns question and expected.")
        for row in rows:
            question, expected = (row["question"] or "").strip(), (row["expected"] or "").strip()
            if not question:
                continue
            hits = knowledge.search(question, limit=1)
            places = (hits[0].title, *hits[0].heading_path, hits[0].text) if hits else ()
            right = bool(expected) and any(expected in place for place in places)
            yield Judged(hits[0].score if hits else 0.0, right, bool(expected))
