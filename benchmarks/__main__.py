"""Every benchmark, one after the other, and one table of all: as CSV, JSON and a plot in ``benchmarks/out``.

    python -m benchmarks [--quick]

Leave the machine alone meanwhile: each prints ratios between alternatives that take turns in one run, which makes them
robust against a slow machine but not against a busy one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks import table

#: Name -> what makes it quick.
BENCHMARKS: dict[str, list[str]] = {
    "limit_checks": [],
    "queue_pops": ["--jobs", "20000"],
    "queue_jobs": ["--jobs", "1000", "--rounds", "1", "--probes", "8"],
    "fairness": ["--jobs", "2000"],
    "growth": ["--jobs", "10000"],
    "front_end": ["--events", "400", "--answers", "60"],
    "platform": ["--quick"],
    "image_platform": ["--quick"],
    "image_engines": ["--quick"],
    "chat_engines": ["--quick"],
    "moderation": ["--quick"],
    "watermarks": ["--quick"],
    "acknowledgements": ["--rounds", "1"],
    "knowledge": ["--chunks", "5000", "--questions", "50"],
    "gpu": [],
}


def main() -> int:
    quick = "--quick" in sys.argv[1:]
    folder = Path(__file__).parent / "out"
    folder.mkdir(exist_ok=True)
    failed = []
    for name, shorter in BENCHMARKS.items():
        print(f"\n== python -m benchmarks.{name} {' '.join(shorter if quick else [])}".rstrip(), flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(folder / f"{name}.json")]
        if subprocess.run(command + (shorter if quick else []), check=False).returncode:
            failed.append(name)
    print("\n== all", flush=True)
    table.main(folder)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
