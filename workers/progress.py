"""How far pictures are: the newest step and preview of each execution, overwritten in place."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from workers import keys
from workers.doorbell import ring

#: Nobody looks at a preview so long after the last one.
TTL_S = 900

#: Fields in the order of ``read``.
FIELDS = ("step", "total_steps", "preview_number", "preview")


@dataclass(slots=True)
class _Latest:
    """What an engine said last of one execution."""

    step: int
    total_steps: int
    preview: bytes | None = None
    preview_number: int = 0
    written_number: int = 0


class ProgressWriter:
    """Writes the progress of many executions, a pipeline at a time; what is overtaken before is never written.

    Args:
        connection: Client that returns bytes.
        kind: Kind of the jobs, which names the doorbell.
    """

    def __init__(self, connection: redis.Redis, kind: str) -> None:
        self._redis = connection
        self._kind = kind
        self._latest: dict[str, _Latest] = {}
        self._changed: set[str] = set()

    def note(self, execution_id: str, step: int, total_steps: int, preview: bytes | None) -> None:
        """Take news; nothing is written before ``flush``."""
        latest = self._latest.setdefault(execution_id, _Latest(step, total_steps))
        latest.step, latest.total_steps = step, total_steps
        if preview is not None:
            latest.preview = preview
            latest.preview_number += 1
        self._changed.add(execution_id)

    def forget(self, execution_id: str) -> None:
        """Drop an execution that has ended."""
        self._latest.pop(execution_id, None)
        self._changed.discard(execution_id)

    def flush(self) -> None:
        """Write what has changed and ring the bell.

        Raises:
            redis.RedisError: The next ``flush`` writes it.
        """
        if not self._changed:
            return
        changed = list(self._changed)
        with self._redis.pipeline(transaction=False) as pipeline:
            for execution_id in changed:
                latest = self._latest[execution_id]
                fields: dict[str, int | bytes] = {"step": latest.step, "total_steps": latest.total_steps}
                if latest.preview is not None and latest.written_number < latest.preview_number:
                    fields |= {"preview": latest.preview, "preview_number": latest.preview_number}
                pipeline.hset(keys.image_progress(execution_id), mapping=fields)  # type: ignore[arg-type]  # bytes are fine
                pipeline.expire(keys.image_progress(execution_id), TTL_S)
            ring(pipeline, self._kind, changed)
            pipeline.execute()
        for execution_id in changed:
            self._latest[execution_id].written_number = self._latest[execution_id].preview_number
        self._changed.difference_update(changed)
