"""``python -m tests.chaos --jobs 10000 --kills 300 --seed 7``: the long form; see ``tests.chaos``."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys

from tests.chaos.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="prompts in all")
    parser.add_argument("--kills", type=int, default=300, help="processes that die by kill -9")
    parser.add_argument("--seed", type=int, default=None, help="of faults and load; by default another one each time")
    parser.add_argument("--pause-s", type=float, default=1.0, help="mean pause between two faults")
    parser.add_argument("--workers", type=int, default=3, help="supervisors, each with a worker and an engine")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    report = asyncio.run(run(seed, options.jobs, options.kills, options.pause_s, options.workers))
    if not report.violations:
        print("\n".join(report.faults))
    print(report)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
