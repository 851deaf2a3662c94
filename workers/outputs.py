"""What executions bring and begin from: growing text, progress, pictures; for the worker's loop, in one place."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import redis

from workers.artifacts import ArtifactStore
from workers.attachments import Attachments
from workers.contract import AnswerReport
from workers.engine_channel import Message
from workers.execution_slots import Slot
from workers.pictures import Pictures
from workers.progress import ProgressWriter
from workers.results import TextWriter

#: Pictures that are fetched and stored at the same time.
STORE_THREADS = 4


class Outputs:
    """The outputs of one worker's executions.

    Args:
        connection: Client that returns bytes.
        kind: Kind of the jobs.
        ttl_s: Seconds a text can be read after it last grew.
        artifacts: Where pictures lie.
        ring: Wakes the worker's loop; called from threads.

    Attributes:
        texts: Answers as they grow.
        pictures: Finished ones.
        attachments: Pictures that jobs begin from.
        grounds: What answers stand on, by execution.
    """

    def __init__(
        self, connection: redis.Redis, kind: str, ttl_s: int, artifacts: ArtifactStore, ring: Callable[[], None]
    ) -> None:
        self._threads = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="artifacts")
        self._progress = ProgressWriter(connection, kind)
        self.texts = TextWriter(connection, kind, ttl_s)
        self.pictures = Pictures(artifacts, self._threads, ring)
        self.attachments = Attachments(artifacts, self._threads, ring)
        self.grounds: dict[str, AnswerReport] = {}

    def hear(self, slot: Slot, message: Message) -> bool:
        """Take what the engine says of an execution; returns whether it is something for its reader to see soon."""
        match message:
            case ["delta", _, text]:
                self.texts.append(slot.id, text)
            case ["image_progress", _, step, total_steps, preview]:
                self._progress.note(slot.id, step, total_steps, preview and b64decode(preview))
            case ["picture", _, index, data, media_type, width_px, height_px, seed, covered]:
                self.pictures.take(slot, index, data, media_type, (width_px, height_px), seed, covered=covered)
                return False
            case ["grounds", _, report]:
                self.grounds[slot.id] = AnswerReport.model_validate(report)
                return False
            case _:
                return False
        return True

    def flush(self) -> None:
        """Write what readers are to see.

        Raises:
            redis.RedisError: Redis is away; the next ``flush`` writes it.
        """
        self.texts.flush()
        self._progress.flush()

    def end(self, execution_id: str, answered: bool) -> None:
        """An execution is over; what belongs to an answer stays until the end is on disk."""
        self.attachments.forget(execution_id)
        self._progress.forget(execution_id)
        self.grounds.pop(execution_id, None)
        if not answered:
            self.pictures.discard(execution_id)

    def forget(self, execution_id: str) -> None:
        """Drop what is left of an execution: its end is on disk, or somebody else's affair."""
        self.texts.forget(execution_id)
        self.pictures.forget(execution_id)

    def close(self) -> None:
        """Wait for no store any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
