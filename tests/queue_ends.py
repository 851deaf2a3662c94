"""Both ends of the queue for tests: a worker that moves step by step, and a reader of answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import redis
from rq.serializers import JSONSerializer

from tests.requests import chat_request
from workers import keys
from workers.client import Client, Ended, Restarted, TextDelta, Update
from workers.contract import Event, Request, decode_event
from workers.execution_slots import Slot
from workers.fair_queue import FairQueue
from workers.intake import Intake
from workers.redis_connection import connect, connect_async
from workers.results import TextWriter
from workers.settings import BudgetSettings, LimitSettings, Rate, RedisSettings, WorkerSettings
from workers.settlement import Answered, Outcome, Settlement
from workers.settlement import Ended as EndedExecution
from workers.usage import NO_BUDGETS

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "gpu_s": 0.5}
GENEROUS = LimitSettings(
    tenant=Rate(per_minute=1000, burst=1000),
    channel=Rate(per_minute=1000, burst=1000),
    user=Rate(per_minute=1000, burst=1000),
)
TIGHT = GENEROUS.model_copy(update={"user": Rate(per_minute=1, burst=2)})


class Worker:
    """Starts, answers and ends jobs by the worker's own parts, one step at a time."""

    def __init__(self, connection: redis.Redis) -> None:
        self.connection = connection
        self.queue = FairQueue("chat", connection=connection, serializer=JSONSerializer)
        self.texts = TextWriter(connection, "chat", ttl_s=3600)
        self.intake = Intake(self.queue, "w1", 60)
        self.settlement = Settlement(self.queue, self.texts, "w1", "rq:worker:w1")

    def start(self) -> Slot:
        taken = self.intake.take(1)
        assert len(taken.slots) == 1
        return taken.slots[0]

    def say(self, slot: Slot, text: str) -> None:
        self.texts.append(slot.id, text)
        self.texts.flush()

    def end(self, slot: Slot, outcome: Outcome | None = None) -> bool:
        outcome = outcome or Answered("stop", USAGE)
        return bool(self.settlement.settle([EndedExecution(slot, outcome)]))


@contextlib.asynccontextmanager
async def client_of(
    url: str, limits: LimitSettings = GENEROUS, outage_s: float = 60.0, budgets: BudgetSettings = NO_BUDGETS
) -> AsyncIterator[Client]:
    settings = RedisSettings(url=url, connect_timeout_s=1.0)
    async with Client(
        connect_async(settings, Path("unused")),
        connect(settings, Path("unused")),
        limits,
        WorkerSettings(),
        outage_s,
        budgets=budgets,
    ) as client:
        yield client


class Reader:
    """Follows a job in the background and keeps what it was told."""

    def __init__(self, client: Client, job_id: str) -> None:
        self.updates: list[Update] = []
        self._task = asyncio.create_task(self._read(client, job_id))

    async def _read(self, client: Client, job_id: str) -> None:
        async for update in client.follow(job_id):
            self.updates.append(update)

    @property
    def text(self) -> str:
        """The answer as a user sees it now."""
        text = ""
        for update in self.updates:
            if isinstance(update, TextDelta):
                text += update.text
            elif isinstance(update, Restarted):
                text = ""
        return text

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + 30.0
        while not condition():
            assert time.monotonic() < deadline_s, self.updates
            assert not self._task.done() or condition(), self._task
            await asyncio.sleep(0.01)

    async def end(self) -> Event:
        await asyncio.wait_for(self._task, 60.0)
        ends = [update.event for update in self.updates if isinstance(update, Ended)]
        assert len(ends) == 1
        assert isinstance(self.updates[-1], Ended)
        return ends[0]


def told(connection: redis.Redis, front_end: str = "term") -> list[str]:
    return [decode_event(fields[b"event"]).type for _, fields in connection.xrange(keys.events(front_end))]


async def submitted(client: Client, request: Request | None = None) -> str:
    return (await client.submit(request or chat_request())).job_id
