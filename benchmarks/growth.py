"""How the cost of a job grows: with queued jobs, with tenants, and with workers.

Run ``python -m benchmarks.growth [--jobs 100000] [--json FILE] [--redis URL]``. ``us/pop`` is the server's CPU time for
taking one job in batches of 64 from a queue that stays so long; ``enqueue us`` the round trip of adding one. Workers
are whole ones with a no-op engine, and share this machine's cores with the server: what they gain is bounded by those.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

import redis
from rq.job import Job
from rq.serializers import JSONSerializer

from benchmarks.measuring import Row, parse, report, server_cpu_s, server_url
from benchmarks.queue_jobs import fill_ours, span_s
from workers.fair_queue import FairQueue

BATCH, BATCHES = 64, 60
WORKERS = (1, 2, 4)


def fill(client: redis.Redis, queue: FairQueue, jobs: int, tenants: int, first: int = 0) -> None:
    """Jobs as small as they may be: a hash and an id."""
    for start in range(first, first + jobs, 2_000):
        with client.pipeline(transaction=False) as pipeline:
            for index in range(start, min(start + 2_000, first + jobs)):
                job_id = f"t{index % tenants}__{index}"
                pipeline.hset(
                    Job.redis_job_namespace_prefix + job_id,
                    mapping={"status": "queued", "origin": queue.name, "cost_gpu_s": "1.0", "user": f"u{index % 50}"},
                )
                pipeline.rpush(queue.key, job_id)
            pipeline.execute()


def depth(client: redis.Redis, jobs: int, tenants: int) -> Row:
    """Pop and add at a constant length."""
    client.flushall()
    queue = FairQueue("bench", connection=client, job_class=Job)
    fill(client, queue, jobs, tenants)
    while client.llen(queue.key):  # sorted into lanes once, so that what follows is the steady state
        queue._ingest()  # noqa: SLF001 - what the first pops do
        if client.llen(queue.key) <= BATCH:
            break
    pops_s, adds_s, cpu_s, popped = [], [], 0.0, 0
    for _ in range(BATCHES):
        before_s, begun_s = server_cpu_s(client), time.perf_counter()
        ids = queue.pop_many(min(BATCH, jobs))
        pops_s.append(time.perf_counter() - begun_s)
        cpu_s += server_cpu_s(client) - before_s
        popped += len(ids)
        with client.pipeline(transaction=False) as pipeline:
            pipeline.delete(queue.intermediate_queue_key)
            queue.end_runs(pipeline, [(job_id, 0.0, None) for job_id in ids])
            pipeline.execute()
        begun_s = time.perf_counter()
        client.rpush(queue.key, *ids)
        adds_s.append((time.perf_counter() - begun_s) / len(ids))
    figures = {
        "us/pop": cpu_s / popped * 1e6,
        "pop of 64, median ms": statistics.median(pops_s) * 1e3,
        "pop of 64, p99 ms": sorted(pops_s)[int(0.99 * len(pops_s))] * 1e3,
        "enqueue us": statistics.median(adds_s) * 1e6,
    }
    return Row(f"{jobs:,} queued, {tenants:,} tenants", figures)


def workers(client: redis.Redis, url: str, count: int, jobs: int) -> Row:
    """Jobs a second of several workers on one queue."""
    client.flushall()
    fill_ours(client, jobs)
    code = f"from benchmarks.queue_jobs import work; work('BatchWorker', {url!r})"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) for _ in range(count)]
    for each in running:
        each.wait(600)
    return Row(f"{count} workers", {"jobs/s": jobs / span_s(client, jobs)})


def main() -> None:
    options = parse(__doc__, jobs=100_000)
    rows = []
    with server_url(options.redis) as url, redis.Redis.from_url(url) as client:
        depths = [count for count in (10, 1_000, 10_000, 100_000) if count <= options.jobs]
        rows += [depth(client, count, min(count, 100)) for count in depths]
        rows += [depth(client, depths[-1], count) for count in (10, 1_000, 10_000) if count <= depths[-1]]
        rows += [workers(client, url, count, min(4_000, options.jobs)) for count in WORKERS]
        FairQueue("bench", connection=client, serializer=JSONSerializer).delete()
    first = next(row for row in rows if "us/pop" in row.figures and not row.name.startswith("10 "))
    for row in rows:
        if "us/pop" in row.figures:
            row.figures["x of 1,000 queued"] = row.figures["us/pop"] / first.figures["us/pop"]
        else:
            row.figures["x of one worker"] = row.figures["jobs/s"] / rows[-len(WORKERS)].figures["jobs/s"]
    report(f"Growth, {os.cpu_count()} cores", rows, options.json)


if __name__ == "__main__":
    main()
