"""The whole platform against the bare image engine: pictures a second at 4 and 8 users, and time to the first preview.

Both sides run the same model with the same settings, in turns: while one computes the other is idle. The platform's
side is a real ``palaver worker --kinds image`` on a real server, asked by concurrent clients through admission, queue,
follower and artifact store, until each has the bytes of its picture; the engine's side is the engine alone in a process
of its own, fed directly. Both sides draw the same requests with the same seeds.

    python -m benchmarks.image_platform [--rounds 5] [--quick] [--json FILE]

The model is that of the settings: ``PALAVER_IMAGE__MODEL=...`` measures another one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis

from benchmarks.measuring import Row, report, server_url
from bots import settings
from bots.image_prompt import ImagePrompt, image_request
from generation.devices import engine_environment
from workers import keys, redis_connection
from workers.client import Client, Ended, ImageProgress
from workers.contract import ImageOptions, ReplyTo
from workers.settings import LimitSettings, Rate, RedisSettings, WorkerSettings
from workers.worker_process import reveal

USERS = (4, 8)
STEPS = 16
PROMPTS = ("a red apple", "a yellow star", "a smiling cat", "a sailing boat", "two green trees", "a blue car")


@dataclass(frozen=True)
class Run:
    """What one side did in one round."""

    pictures: int
    seconds: float
    preview_s: tuple[float, ...]

    @property
    def pictures_per_s(self) -> float:
        """Finished pictures by wall time."""
        return self.pictures / self.seconds


def main() -> None:
    arguments = _arguments()
    os.environ.update(engine_environment())  # both sides inherit it
    rounds = 1 if arguments.quick else arguments.rounds
    probes = 3 if arguments.quick else arguments.probes
    runs: dict[tuple[str, int], list[Run]] = {}
    with server_url(arguments.redis) as url, _Worker(url) as worker, _BareEngine() as engine:
        worker.wait_until_ready()
        sides: dict[str, Callable[[int, int], Run]] = {"engine": engine.run, "platform": worker.run}
        for run in sides.values():
            run(2, 4)  # warm: caches, code paths, connections
        for number in range(rounds):
            # The side that begins changes: a slow moment of the machine hits both alike.
            for users in USERS:
                for side, run in sorted(sides.items(), reverse=bool(number % 2)):
                    runs.setdefault((side, users), []).append(run(users, STEPS))
        firsts: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(probes):
            for side, run in sides.items():
                firsts[side] += run(1, 6).preview_s
    _report(runs, firsts, arguments.json)


def _report(runs: dict[tuple[str, int], list[Run]], firsts: dict[str, list[float]], target: Path | None) -> None:
    rows = []
    for (side, users), of_side in runs.items():
        figures = {
            "pictures/s": statistics.median(run.pictures_per_s for run in of_side),
            "first preview p50 ms": 1000 * statistics.median(second for run in of_side for second in run.preview_s),
        }
        rows.append(Row(f"{side}, {users} users", figures))
    for users in USERS:
        pairs = zip(runs["platform", users], runs["engine", users], strict=True)
        percent = [100 * ours.pictures_per_s / bare.pictures_per_s for ours, bare in pairs]
        rows.append(Row(f"platform over engine, {users} users", {"percent": statistics.median(percent)}))
    for side, seconds in firsts.items():
        median_ms = 1000 * statistics.median(seconds)
        rows.append(Row(f"{side}, one request, nothing else running", {"first preview p50 ms": median_ms}))
    goals = {f"platform over engine, {users} users": ("percent", 95.0) for users in USERS}
    report(f"Platform and bare image engine, same model, {STEPS} steps, interleaved", rows, target, goals)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--probes", type=int, default=10, help="single requests for the time to the first preview")
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--redis", help="URL of a server whose database may be used; its own is started otherwise")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _options(number: int, steps: int) -> dict[str, int]:
    return {"seed": number, "num_inference_steps": steps}


class _BareEngine:
    """The engine alone, in a process of its own."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child = context.Pipe()
        configured = settings.load()
        options = reveal({**configured.image.model_dump(), "data_dir": configured.data_dir})
        self._process = context.Process(target=_serve_engine, args=(child, options), daemon=True)

    def __enter__(self) -> _BareEngine:
        self._process.start()
        self._pipe.recv()  # loaded
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def run(self, users: int, steps: int) -> Run:
        """One picture for each user, all asked at once."""
        self._pipe.send([(PROMPTS[number % len(PROMPTS)], _options(number, steps)) for number in range(users)])
        result = self._pipe.recv()
        assert isinstance(result, Run)
        return result


def _serve_engine(pipe: Connection, options: dict[str, Any]) -> None:
    from generation.image.factory import build
    from generation.types import Failed, ImageRequest, ImageSampling, Picture, Progress

    os.setsid()  # as the worker has: where the kernel shares the cores out by session, both sides get the same share
    engine = build(options, lambda *_: None)
    pipe.send("loaded")
    while True:
        wanted = pipe.recv()
        started_s = time.perf_counter()
        for number, (prompt, sampling) in enumerate(wanted):
            engine.submit(ImageRequest(str(number), prompt, sampling=ImageSampling(**sampling)))
        pictures, previews = 0, {}
        while engine.busy:
            for event in engine.step():
                match event:
                    case Progress(request_id, preview=bytes()):
                        previews.setdefault(request_id, time.perf_counter() - started_s)
                    case Picture():
                        pictures += 1
                    case Failed(_, code):
                        raise SystemExit(f"the engine failed: {code}")
        pipe.send(Run(pictures, time.perf_counter() - started_s, tuple(previews.values())))


class _Worker:
    """A real worker process tree and a client of it."""

    def __init__(self, url: str) -> None:
        self._redis = RedisSettings(url=url)
        self._url = url
        self._folder = tempfile.TemporaryDirectory(prefix="plvw")
        self._runner = asyncio.Runner()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Worker:
        folder = Path(self._folder.name)
        limits = LimitSettings(**dict.fromkeys(("tenant", "channel", "user"), Rate(per_minute=1e6, burst=100_000)))
        self._client = Client(
            redis_connection.connect_async(self._redis, folder),
            redis_connection.connect(self._redis, folder),
            limits,
            WorkerSettings(),
        )
        environment = {**os.environ, "REDIS_URL": self._url}
        command = [sys.executable, "-m", "bots.cli", "worker", "--kinds", "image"]
        self._process = subprocess.Popen(command, env=environment)
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()
        if self._process:
            self._process.terminate()
            self._process.wait(60)
        self._folder.cleanup()

    def wait_until_ready(self) -> None:
        """Until a worker says which engine it runs."""
        with redis.Redis.from_url(self._url) as client:
            while not any(json.loads(entry)["engine"] for entry in client.hvals(keys.workers())):
                assert self._process is not None
                assert self._process.poll() is None, "the worker ended"
                time.sleep(0.2)

    def run(self, users: int, steps: int) -> Run:
        """One picture for each user, all asked at once."""
        return self._runner.run(self._run(users, steps))

    async def _run(self, users: int, steps: int) -> Run:
        started_s = time.perf_counter()
        previews = await asyncio.gather(*(self._ask(number, steps, started_s) for number in range(users)))
        return Run(users, time.perf_counter() - started_s, tuple(previews))

    async def _ask(self, number: int, steps: int, started_s: float) -> float:
        """Until the picture's bytes are here; returns when its first preview was."""
        prompt = ImagePrompt(
            platform="bench",
            tenant=f"bench-{number % 4}",
            channel="bench",
            user=f"user-{number}",
            key=uuid4().hex,
            text=PROMPTS[number % len(PROMPTS)],
            reply=ReplyTo(front_end="bench"),
            options=ImageOptions.model_validate(_options(number, steps)),
        )
        submitted = await self._client.submit(image_request(prompt, timeout_s=600.0))
        preview_s = 0.0
        async for update in self._client.follow(submitted.job_id):
            match update:
                case ImageProgress(preview=bytes()):
                    preview_s = preview_s or time.perf_counter() - started_s
                case Ended(event):
                    assert event.type == "finished", event.failure
                    for image in event.images:
                        assert await self._client.artifact(image.artifact_id)
                    return preview_s
        raise AssertionError("the follower ended without an end")


if __name__ == "__main__":
    main()
