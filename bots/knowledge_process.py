"""``palaver knowledge`` as a child process: parsers and embedding models stay out of front-ends, and block none."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from workers.errors import WorkersError

_LONGEST_S = 300.0


class KnowledgeProcessError(WorkersError):
    """Documents could not be added, listed or removed; the message is the command's own."""

    code = "knowledge"
    exit_code = 65


async def run(*arguments: str) -> list[dict[str, Any]]:
    """Run ``palaver knowledge`` with these arguments and ``--json``, as far as it is known there.

    Returns:
        The objects that it writes; those without JSON as ``{"text": line}``.

    Raises:
        KnowledgeProcessError: It failed, or took too long.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bots.cli", "knowledge", *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_LONGEST_S):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        raise KnowledgeProcessError("That took too long and was stopped; nothing of it is half there.") from None
    if process.returncode:
        lines = [line for line in errors.decode(errors="replace").splitlines() if line.startswith("palaver: ")]
        raise KnowledgeProcessError(lines[-1].removeprefix("palaver: ") if lines else "It did not work; see the log.")
    return [_object(line) for line in output.decode().splitlines() if line.strip()]


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {"text": line}
    return found if isinstance(found, dict) else {"text": line}
