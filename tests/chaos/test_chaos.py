"""The short form: everything as real processes, a fault every second, and nothing lost, doubled or left behind.

``CHAOS_SEED=7 pytest tests/chaos`` runs another seed. The machine has a will of its own, so that one seed is the same
trouble and not the same run: a seed that has failed is kept in ``seeds.txt``, and what it found gets a test of its own.
"""

from __future__ import annotations

import os
import sys

import pytest

from tests.chaos.plan import KILLS, TROUBLES, plan
from tests.chaos.run import run
from tests.chaos.seeds import kept

JOBS, KILLED, PAUSE_S = 520, 22, 0.8


@pytest.mark.kill
@pytest.mark.timeout(400)
async def test_nothing_is_lost_or_doubled_whatever_dies() -> None:
    report = await run(int(os.environ.get("CHAOS_SEED", kept()[0])), JOBS, KILLED, PAUSE_S)
    sys.stdout.write(f"\n{report}\n")
    assert not report.violations, str(report)
    assert report.kills >= 20
    assert report.counts["answered"] >= 0.8 * JOBS


def test_a_plan_is_a_function_of_its_seed_and_holds_every_kind_of_fault() -> None:
    assert plan(7, 22) == plan(7, 22) != plan(8, 22)
    names = {fault.name for fault in plan(7, 40)}
    assert names == {*(f"kill {target}" for target in KILLS), *TROUBLES}
