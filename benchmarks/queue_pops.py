"""Fair pops a second: 1,000 tenants, 100,000 jobs, taken in batches of 64 and released again.

Run ``python -m benchmarks.queue_pops [--json FILE] [--redis URL]``. Without a URL a server of its own is started.
The queue is filled by raw writes that have the shape of rq's jobs: enqueuing is not what is measured here. Each batch
is popped, taken off the intermediate list and released, as a worker does; ``pops_per_s`` counts the time in pops, with
all sorting. ``server_us_per_pop`` is the server's CPU time for that, which other processes disturb less: its inverse is
what a server could do that nobody else slows. ``server_us_per_job`` includes the release. The FIFO row pops rq's plain
list by LMOVE in one Lua call and is what fairness is compared with.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import redis
from rq.job import Job

from benchmarks.measuring import Row, parse, report, server_cpu_s, server_url
from workers.fair_queue import FairQueue

if TYPE_CHECKING:
    from collections.abc import Callable

TENANTS = 1_000
BATCH = 64
_FIFO = """local ids = {}
for i = 1, tonumber(ARGV[1]) do
  local id = redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT')
  if not id then break end
  ids[i] = id
end
return ids"""


def fill(client: redis.Redis, queue: FairQueue, jobs: int) -> None:
    rng = random.Random(3)
    ids = [f"guild-{i % TENANTS}__{i}" for i in range(jobs)]
    rng.shuffle(ids)
    payload = b"x" * 300
    for start in range(0, jobs, 2_000):
        with client.pipeline(transaction=False) as pipeline:
            for job_id in ids[start : start + 2_000]:
                fields: dict[str, str | bytes] = {
                    "status": "queued",
                    "created_at": "2026-01-01T00:00:00.000000Z",
                    "enqueued_at": "2026-01-01T00:00:00.000000Z",
                    "started_at": "",
                    "ended_at": "",
                    "origin": queue.name,
                    "description": job_id,
                    "timeout": "300",
                    "worker_name": "",
                    "data": payload,
                    "cost_gpu_s": str(rng.choice((0.5, 1.0, 2.0, 8.0))),
                    "user": f"user-{rng.randrange(50)}",
                }
                pipeline.hset(Job.redis_job_namespace_prefix + job_id, mapping=dict(fields))
                pipeline.rpush(queue.key, job_id)
            pipeline.execute()


def drain(
    client: redis.Redis, pop: Callable[[], list[str]], end: Callable[[list[str]], object], jobs: int
) -> dict[str, float]:
    """Pop everything; returns the figures of a row."""
    popped, busy_s, longest_s, server_s = 0, 0.0, 0.0, 0.0
    began_cpu_s = server_cpu_s(client)
    while True:
        before_s, began = server_cpu_s(client), time.perf_counter()
        ids = pop()
        took_s = time.perf_counter() - began
        server_s += server_cpu_s(client) - before_s
        if not ids:
            break
        popped, busy_s, longest_s = popped + len(ids), busy_s + took_s, max(longest_s, took_s)
        end(ids)
    assert popped == jobs, f"{popped} of {jobs} jobs came out"
    return {
        "pops_per_s": popped / busy_s,
        "longest_pop_ms": longest_s * 1e3,
        "server_us_per_pop": server_s / popped * 1e6,
        "server_us_per_job": (server_cpu_s(client) - began_cpu_s) / popped * 1e6,
        "jobs": popped,
    }


def main() -> None:
    options = parse(__doc__, jobs=100_000)
    rows = []
    with server_url(options.redis) as url, redis.Redis.from_url(url) as client:
        queue = FairQueue("bench", connection=client, job_class=Job)
        fifo = client.register_script(_FIFO)

        def end_fair(ids: list[str]) -> None:
            with client.pipeline(transaction=False) as pipeline:
                pipeline.delete(queue.intermediate_queue_key)
                queue.end_runs(pipeline, [(job_id, 0.0, None) for job_id in ids])
                pipeline.execute()

        def pop_fifo() -> list[str]:
            return list(fifo(keys=[queue.key, queue.intermediate_queue_key], args=[BATCH]))

        for name, pop, end in (
            ("fair", lambda: queue.pop_many(BATCH), end_fair),
            ("FIFO, no fairness", pop_fifo, lambda _ids: client.delete(queue.intermediate_queue_key)),
        ):
            client.flushdb()
            fill(client, queue, options.jobs)
            rows.append(Row(name, drain(client, pop, end, options.jobs)))
        client.flushdb()
    report("Fair pops, batches of 64, 1,000 tenants", rows, options.json, goals={"fair": ("pops_per_s", 30_000)})
    print(f"undisturbed, by the server's CPU time: {1e6 / rows[0].figures['server_us_per_pop']:,.0f} pops/s")


if __name__ == "__main__":
    main()
