"""Turn pip's lock file into requirements with hashes, which every pip reads: python hashes.py pylock.toml > hashes.txt.

Files that lie on this machine are left out: torch's CPU build has a build tag, and comes from an index of its own.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

HEADER = """\
# What the container image installs, each file by its hash: CPython 3.11 on Linux x86_64 (glibc). Made by `make lock`.
# torch is not in it: its build depends on the GPU, so it is installed first, from the index of that build.
"""


def main() -> None:
    """Read the lock file and print."""
    locked = tomllib.loads(Path(sys.argv[1]).read_text("utf-8"))
    lines = [HEADER]
    for package in sorted(locked["packages"], key=lambda each: each["name"]):
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
        if package["name"] == "torch" or not files:
            continue
        hashes = sorted({file["hashes"]["sha256"] for file in files})
        lines.append(f"{package['name']}=={package['version']}")
        lines += [f"    --hash=sha256:{each}" for each in hashes]
    text = "\n".join(lines).replace("\n    --hash", " \\\n    --hash")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
