"""No-op jobs on other libraries' workers: arq, taskiq, dramatiq and Celery, each as its own documents start it.

They cannot live beside us: arq and Celery's transport want a redis client of years ago. So this file imports nothing of
this repository, and runs in an environment of its own, made by ``make bench-queues`` from
``benchmarks/other_queues.txt``:

    build/bench-queues/bin/python -m benchmarks.other_queues NAME fill|work URL JOBS

``fill`` enqueues; ``work`` is a worker of one process that ends after so many jobs and prints one line of JSON: seconds
from the first job's start to the last one's, and CPU seconds of the whole process, starting included.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable

CONCURRENCY = 64
NAMES = ("arq", "taskiq", "dramatiq", "celery")


class Count:
    """Counts jobs as they run, and ends the process after the last."""

    def __init__(self, jobs: int) -> None:
        self._left = jobs
        self._first_s = 0.0

    def one(self) -> None:
        self._first_s = self._first_s or time.perf_counter()
        self._left -= 1
        if self._left == 0:
            used = resource.getrusage(resource.RUSAGE_SELF)
            span_s = time.perf_counter() - self._first_s
            said = json.dumps({"span_s": span_s, "own_s": used.ru_utime + used.ru_stime})
            os.write(1, f"{said}\n".encode())  # Celery has put something else in the place of sys.stdout
            os._exit(0)


def with_arq(url: str, jobs: int) -> tuple[Callable[[], None], Callable[[], None]]:
    import arq
    from arq.connections import RedisSettings
    from arq.worker import Worker, func

    place = RedisSettings.from_dsn(url)
    count = Count(jobs)

    async def no_op(_: object) -> None:
        count.one()

    async def enqueue() -> None:
        pool = await arq.create_pool(place)
        for _ in range(jobs):
            await pool.enqueue_job("no_op")
        await pool.aclose()

    def work() -> None:
        worker = Worker([func(no_op, name="no_op")], redis_settings=place, max_jobs=CONCURRENCY, poll_delay=0.01)
        worker.run()

    return lambda: asyncio.run(enqueue()), work


def with_taskiq(url: str, jobs: int) -> tuple[Callable[[], None], Callable[[], None]]:
    from taskiq.api import run_receiver_task
    from taskiq_redis import ListQueueBroker

    broker, count = ListQueueBroker(url), Count(jobs)

    @broker.task(task_name="no_op")
    async def no_op() -> None:
        count.one()

    async def enqueue() -> None:
        await broker.startup()
        for _ in range(jobs):
            await no_op.kiq()
        await broker.shutdown()

    async def receive() -> None:
        broker.is_worker_process = True
        await broker.startup()
        await run_receiver_task(broker, max_async_tasks=CONCURRENCY)

    return lambda: asyncio.run(enqueue()), lambda: asyncio.run(receive())


def with_dramatiq(url: str, jobs: int) -> tuple[Callable[[], None], Callable[[], None]]:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    broker, count = RedisBroker(url=url), Count(jobs)
    dramatiq.set_broker(broker)

    @dramatiq.actor(actor_name="no_op")
    def no_op() -> None:
        count.one()

    def enqueue() -> None:
        for _ in range(jobs):
            no_op.send()

    def work() -> None:
        worker = dramatiq.Worker(broker, worker_threads=8)
        worker.start()
        time.sleep(600)

    return enqueue, work


def with_celery(url: str, jobs: int) -> tuple[Callable[[], None], Callable[[], None]]:
    from celery import Celery

    # Results in Redis too: the others keep them, or the end of a job, there.
    app, count = Celery("bench", broker=url, backend=url), Count(jobs)

    @app.task(name="no_op")
    def no_op() -> None:
        count.one()

    def enqueue() -> None:
        for _ in range(jobs):
            no_op.delay()

    def work() -> None:
        app.worker_main(["worker", "--pool=solo", "--loglevel=ERROR", "--without-gossip", "--without-mingle"])

    return enqueue, work


def main() -> None:
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    name, what, url, jobs = sys.argv[1:5]
    if importlib.util.find_spec(name) is None:
        sys.exit(f"{name} is not installed")
    enqueue, work = globals()[f"with_{name}"](url, int(jobs))
    (enqueue if what == "fill" else work)()


if __name__ == "__main__":
    main()
