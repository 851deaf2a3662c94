"""``python -m generation.provenance.picture_check``: where a picture came from; a process of its own.

A picture from a stranger is decoded and searched here: it takes its time and its memory without harming whoever asked.
Reads one line of JSON (``keys``) and then the picture from standard input, and writes one line of JSON to standard
output (``lines`` and ``origin``, or ``error``).
"""

from __future__ import annotations

import json
import resource
import sys

from generation.errors import GenerationError

#: Enough for the largest picture that is looked at, and an end for one that claims to be smaller than it is.
_MOST_MEMORY_BYTES = 8 * 2**30


def main() -> None:
    """Answer one order."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    order = json.loads(sys.stdin.buffer.readline())
    try:
        from generation.provenance import marking

        report = marking.verify(sys.stdin.buffer.read(), tuple(order["keys"]))
        answer: dict[str, object] = {"origin": report.origin, "lines": marking.told(report)}
    except GenerationError as error:
        answer = {"error": str(error)}
    except ModuleNotFoundError as error:
        answer = {"error": f"Pictures cannot be looked at here: {error.name} is missing."}
    except MemoryError:
        answer = {"error": "This picture is too large to look at."}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
