"""The process that reads documents: ``python -m generation.retrieval.formats.child SECONDS``; see `confinement`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any

from generation.errors import UnreadableDocumentError
from generation.retrieval.formats.confinement import MEMORY_LIMIT_BYTES, as_json
from generation.retrieval.formats.reading import parse


def main(time_limit_s: int) -> None:
    """Read documents from standard input until it ends."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a parser that prints would spoil the answers
    _confine()
    while header := sys.stdin.buffer.readline():
        told = json.loads(header)
        content = sys.stdin.buffer.read(told["size"])
        signal.alarm(time_limit_s)  # ends the process, whatever it is in
        answer = json.dumps(_read(told["name"], content)).encode() + b"\n"
        signal.alarm(0)
        view = memoryview(answer)
        while view:
            view = view[replies.write(view) or 0 :]


def _read(name: str, content: bytes) -> dict[str, Any]:
    try:
        return as_json(parse(name, content))
    except UnreadableDocumentError as error:
        return {"error": str(error)}
    except RecursionError:
        return {"error": "it is nested too deeply"}
    except MemoryError:
        return {"error": f"reading it takes more than {MEMORY_LIMIT_BYTES // 2**20} MiB of memory"}


def _confine() -> None:
    os.nice(10)
    with contextlib.suppress(ImportError, ValueError, OSError):  # where a system has no such limits, the time is left
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main(int(sys.argv[1]))
