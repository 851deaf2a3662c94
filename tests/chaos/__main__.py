"""``python -m tests.chaos --jobs 10000 --kills 300 --seed 7``: the long form; see ``tests.chaos``."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys

from tests.chaos.run import run
from tests.chaos.seeds import kept

SHORT_JOBS, SHORT_KILLS = 520, 22


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="prompts in all")
    parser.add_argument("--kills", type=int, default=300, help="processes that die by kill -9")
    parser.add_argument("--seed", type=int, default=None, help="of faults and load; by default another one each time")
    parser.add_argument("--pause-s", type=float, default=1.0, help="mean pause between two faults")
    parser.add_argument("--kept", action="store_true", help="first every seed that has failed once, in the short form")
    parser.add_argument("--workers", type=int, default=3, help="supervisors, each with a worker and an engine")
    options = parser.parse_args()
    for seed in kept() if options.kept else []:
        sys.stdout.write(f"kept seed {seed}\n")
        sys.stdout.flush()
        short = asyncio.run(run(seed, SHORT_JOBS, SHORT_KILLS))
        sys.stdout.write(f"{short}\n")
        if short.violations:
            return 1
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    report = asyncio.run(run(seed, options.jobs, options.kills, options.pause_s, options.workers))
    sys.stdout.write(f"{report}\n")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
