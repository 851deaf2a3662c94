"""Whether anything became slower: ratios of one run now against those on record, each with its margin.

    python -m benchmarks.check            measure what is quick, and compare
    python -m benchmarks.check --measured compare what lies in benchmarks/out
    python -m benchmarks.check --record   put what lies in benchmarks/out on record

Only ratios between alternatives of one run are compared, because a machine's own speed cancels out of them; what the
machine does beside does not always, which is what margins are for. A ratio that is better than on record is no failure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.table import OUT, Line, read

RECORD = Path(__file__).parent / "ratios.json"
#: What is measured anew: benchmark -> its options.
QUICK = {
    "queue_jobs": ["--jobs", "2000", "--rounds", "1", "--probes", "10"],
    "queue_pops": ["--jobs", "20000"],
    "limit_checks": [],
    "fairness": ["--jobs", "4000"],
    "growth": ["--jobs", "10000"],
}


@dataclass(frozen=True)
class Ratio:
    """One that is watched.

    Attributes:
        of: Row, and the row it is divided by.
        margin: By which share it may be worse than on record.
    """

    name: str
    benchmark: str
    figure: str
    of: tuple[str, str]
    higher_is_better: bool
    margin: float


WATCHED = (
    Ratio("jobs/s over SimpleWorker", "queue_jobs", "jobs/s", ("BatchWorker", "SimpleWorker"), True, 0.35),
    Ratio("worker CPU over SimpleWorker", "queue_jobs", "CPU us/job", ("BatchWorker", "SimpleWorker"), False, 0.35),
    Ratio("start over SimpleWorker", "queue_jobs", "start ms", ("BatchWorker", "SimpleWorker"), False, 1.0),
    Ratio("CPU of fair pops over FIFO", "queue_pops", "server_us_per_pop", ("fair", "FIFO, no fairness"), False, 0.4),
    Ratio("atomic checks over PING", "limit_checks", "checks_per_s", ("atomic GCRA", "PING"), True, 0.35),
    Ratio(
        "wait of the small, fair over FIFO", "fairness", "median wait s",
        ("fair", "first come, first served"), False, 0.5
    ),
    Ratio(
        "CPU of a pop, 10,000 queued over 1,000", "growth", "us/pop",
        ("10,000 queued, 100 tenants", "1,000 queued, 100 tenants"), False, 0.5,
    ),
    Ratio(
        "CPU of a pop, 10,000 tenants over 10", "growth", "us/pop",
        ("10,000 queued, 10,000 tenants", "10,000 queued, 10 tenants"), False, 0.5,
    ),
)  # fmt: skip


def measure() -> None:
    OUT.mkdir(exist_ok=True)
    for name, options in QUICK.items():
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(OUT / f"{name}.json"), *options]
        subprocess.run(command, check=True)


def ratios(lines: list[Line]) -> dict[str, float]:
    """Those watched ratios whose figures are there."""
    values = {(line.benchmark, line.row, line.figure): line.value for line in lines}
    found = {}
    for each in WATCHED:
        above, below = (values.get((each.benchmark, row, each.figure)) for row in each.of)
        if above is not None and below:
            found[each.name] = above / below
    return found


def compare(now: dict[str, float], record: dict[str, float]) -> list[str]:
    """What became worse, one line each; prints all."""
    worse = []
    for each in WATCHED:
        was, is_ = record.get(each.name), now.get(each.name)
        if was is None or is_ is None:
            worse.append(f"{each.name}: {'not on record' if was is None else 'not measured'}")
            continue
        bound = was * (1 - each.margin) if each.higher_is_better else was * (1 + each.margin)
        bad = is_ < bound if each.higher_is_better else is_ > bound
        print(f"{'WORSE' if bad else 'ok':<6}{each.name:<44}{is_:10.3f}   on record {was:.3f}, bound {bound:.3f}")
        if bad:
            worse.append(f"{each.name}: {is_:.3f}, on record {was:.3f}, bound {bound:.3f}")
    return worse


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", action="store_true", help="measure nothing")
    parser.add_argument("--record", action="store_true", help="measure nothing, put on record what was")
    options = parser.parse_args()
    if not (options.measured or options.record):
        measure()
    now = ratios(read(OUT))
    missing = [each.name for each in WATCHED if each.name not in now]
    if options.record and missing:
        print(f"Nothing is put on record: {', '.join(missing)} was not measured. Run python -m benchmarks.check first.")
        return 1
    if options.record:
        RECORD.write_text(json.dumps({name: round(value, 4) for name, value in now.items()}, indent=2) + "\n")
        print(f"{len(now)} ratios on record in {RECORD.name}")
        return 0
    worse = compare(now, json.loads(RECORD.read_text()))
    print("\n".join(["", *(f"WORSE  {line}" for line in worse)]) if worse else "nothing became worse")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
