"""A process that pops, starts and ends jobs as a worker does; run as ``python -m tests.popper URL MODE``.

Modes: ``work`` until the queue is empty, printing each started id; ``die`` pops once, says so and hangs for a kill -9.
"""

from __future__ import annotations

import sys
import time

import redis
from rq.job import Job

from tests.fair_jobs import end, start
from workers.fair_queue import FairQueue


def main() -> None:
    url, mode = sys.argv[1:]
    with redis.Redis.from_url(url) as client:
        queue = FairQueue("chat", connection=client, job_class=Job, serializer="json")
        if mode == "die":
            sys.stdout.write(" ".join(queue.pop_many(16)) + "\n")
            sys.stdout.flush()
            time.sleep(600)
        while queue.count:
            taken = queue.pop_many(7)
            if not taken:
                queue.wait(0.1)
                continue
            start(client, queue, taken)
            sys.stdout.write(" ".join(taken) + "\n")
            sys.stdout.flush()
            end(client, queue, taken)


if __name__ == "__main__":
    main()
