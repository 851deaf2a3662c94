"""``python -m tests.chaos --jobs 10000 --kills 300 --seed 7``: the long form; see ``tests.chaos``."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
from pathlib import Path

from tests.chaos.run import run
from tests.chaos.seeds import kept
from tests.valkey import BINARY

SHORT_JOBS, SHORT_KILLS = 520, 22


def _redis() -> Path | None:
    found = shutil.which("redis-server")
    return Path(found) if found else None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="prompts in all")
    parser.add_argument("--kills", type=int, default=300, help="processes that die by kill -9")
    parser.add_argument("--seed", type=int, default=None, help="of faults and load; by default another one each time")
    parser.add_argument("--pause-s", type=float, default=1.0, help="mean pause between two faults")
    parser.add_argument("--kept", action="store_true", help="first every seed that has failed once, in the short form")
    parser.add_argument("--workers", type=int, default=3, help="supervisors, each with a worker and an engine")
    parser.add_argument("--models", action="store_true", help="a share of the prompts goes to real models")
    parser.add_argument("--server", choices=("valkey", "redis"), default="valkey", help="redis: from the PATH")
    options = parser.parse_args()
    binary = BINARY if options.server == "valkey" else _redis()
    if binary is None:
        sys.stdout.write("skipped: there is no redis-server on the PATH\n")
        return 0
    for seed in kept() if options.kept else []:
        sys.stdout.write(f"kept seed {seed}\n")
        sys.stdout.flush()
        short = asyncio.run(run(seed, SHORT_JOBS, SHORT_KILLS))
        sys.stdout.write(f"{short}\n")
        if short.violations:
            return 1
    redis_server = _redis() if options.kept else None
    if options.kept and redis_server is None:
        sys.stdout.write("Redis: skipped, there is no redis-server on the PATH\n")
    elif redis_server is not None:
        short = asyncio.run(run(kept()[0], SHORT_JOBS, SHORT_KILLS, binary=redis_server))
        sys.stdout.write(f"on Redis: {short}\n")
        if short.violations:
            return 1
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    length = (seed, options.jobs, options.kills, options.pause_s, options.workers)
    report = asyncio.run(run(*length, with_models=options.models, binary=binary))
    sys.stdout.write(f"{report}\n")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
