"""One tenant with 10,000 jobs against 99 with 10: how long the 99 wait, with our queue and first come, first served.

Run ``python -m benchmarks.fairness [--jobs 10000] [--json FILE] [--redis URL]``. Both sides are the same worker
with the same no-op engine. First come, first served is the same queue with all jobs in one tenant's lane.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from datetime import datetime

import redis
from rq.serializers import JSONSerializer

from benchmarks.measuring import Row, parse, report, server_url
from workers.contract import ChatBody, ChatMessage, ReplyTo, Request, encode
from workers.fair_queue import FairQueue

TENANTS, OF_EACH = 99, 10


def fill(client: redis.Redis, jobs: int, fair: bool) -> list[str]:
    """The large tenant first; returns the ids of the others' jobs."""
    queue = FairQueue("chat", connection=client, serializer=JSONSerializer)
    owners = ["large"] * jobs + [f"small{number % TENANTS}" for number in range(TENANTS * OF_EACH)]
    small = []
    with client.pipeline(transaction=False) as pipeline:
        for index, owner in enumerate(owners):
            request = Request(
                platform="bench", tenant=owner if fair else "all", channel="c", user=f"u{index % 100}",
                idempotency_key=f"{owner}-{index}", reply=ReplyTo(front_end="bench"), created_at_s=time.time(),
                body=ChatBody(messages=(ChatMessage(role="user", content="x" * 200),)),
            )  # fmt: skip
            queue.enqueue_call(
                "palaver.chat", kwargs={"request": json.loads(encode(request))}, job_id=request.job_id,
                description="chat", result_ttl=600, pipeline=pipeline,
            )  # fmt: skip
            if owner != "large":
                small.append(request.job_id)
        pipeline.execute()
    return small


def waits_s(client: redis.Redis, url: str, jobs: int, fair: bool) -> list[float]:
    """Seconds from the worker's first start to the start of each job of the 99."""
    client.flushall()
    small = fill(client, jobs, fair)
    code = f"from benchmarks.queue_jobs import work; work('BatchWorker', {url!r})"
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
    with client.pipeline(transaction=False) as pipeline:
        for key in client.scan_iter("rq:job:*", count=10_000):
            pipeline.hmget(key, "started_at")
        begun = min(datetime.fromisoformat(raw.decode()) for (raw,) in pipeline.execute())
        for job_id in small:
            pipeline.hget(f"rq:job:{job_id}", "started_at")
        starts = [datetime.fromisoformat(raw.decode()) for raw in pipeline.execute()]
    return [(start - begun).total_seconds() for start in starts]


def main() -> None:
    options = parse(__doc__, jobs=10_000)
    rows = []
    with server_url(options.redis) as url, redis.Redis.from_url(url) as client:
        for name, fair in (("fair", True), ("first come, first served", False)):
            waits = sorted(waits_s(client, url, options.jobs, fair))
            figures = {"median wait s": statistics.median(waits), "p99 wait s": waits[int(0.99 * len(waits))]}
            rows.append(Row(name, figures))
    for row in rows:
        row.figures["fair is x times"] = row.figures["median wait s"] / rows[0].figures["median wait s"]
    report(f"What {TENANTS} tenants with {OF_EACH} jobs wait behind one with {options.jobs:,}", rows, options.json)


if __name__ == "__main__":
    main()
