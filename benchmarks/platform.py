"""The whole platform against the bare engine: throughput at 8 and 32 users, and time to the first token.

Both sides run the same model with the same settings, in turns: while one computes the other is idle. The platform's
side is a real ``palaver worker`` on a real server, asked by concurrent clients through admission, queue and follower;
the engine's side is the same engine, moderated alike, alone in a process of its own and fed directly: what moderation
costs is what ``benchmarks.moderation`` tells. A first token is the first text that may be shown: a moderated answer is
shown sentence by sentence, so that the probe for it asks for one word. Answers are greedy, of mixed lengths, and of the
same length on both sides.

    python -m benchmarks.platform [--rounds 7] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import operator
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from uuid import uuid4

import redis

from benchmarks.measuring import Row, report, server_url
from generation.data_dir import default_data_dir
from generation.devices import engine_environment
from workers import keys, redis_connection
from workers.client import Client, Ended, TextDelta
from workers.contract import ChatBody, ChatMessage, ChatOptions, ReplyTo, Request
from workers.settings import LimitSettings, ModerationSettings, Rate, RedisSettings, WorkerSettings

USERS = (8, 32)
LENGTHS_TOKENS = (16, 32, 64, 96, 128, 160, 192, 256)
PERSONA = (
    "You are a patient assistant in a chat application. You write out lists in full, however long they are, and you "
    "never stop before the end of a list."
)
#: Answered at length by any model, so that every answer ends at its limit: in bf16 a near-tie may end an ordinary
#: answer in one batch and not in another, and the two sides would do different work.
QUESTION = "Write the numbers from {first} to 1000, separated by commas, and nothing else."


@dataclass(frozen=True)
class Run:
    """What one side did in one round; the engine's pieces are tokens, the platform's what arrives together."""

    tokens: int
    seconds: float
    ttft_s: tuple[float, ...]
    gaps_s: tuple[float, ...]

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens by wall time."""
        return self.tokens / self.seconds


def main() -> None:
    arguments = _arguments()
    os.environ.update(engine_environment())  # both sides inherit it
    rounds = 1 if arguments.quick else arguments.rounds
    probes = 5 if arguments.quick else arguments.probes
    runs: dict[tuple[str, int], list[Run]] = {}
    with server_url(arguments.redis) as url, _Worker(url) as worker, _BareEngine() as engine:
        worker.wait_until_ready()
        sides = {"engine": engine.run, "platform": worker.run}
        for run in sides.values():
            run(2, 16)  # warm: caches, code paths, connections
        for _ in range(rounds):
            for users in USERS:
                for side, run in sides.items():
                    runs.setdefault((side, users), []).append(run(users, None))
        firsts: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(probes):
            for side, run in sides.items():
                firsts[side] += run(1, 2).ttft_s
    _report(runs, firsts, arguments.json)


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(0.99 * len(seconds))] if seconds else 0.0


def _report(runs: dict[tuple[str, int], list[Run]], firsts: dict[str, list[float]], target: Path | None) -> None:
    rows = []
    for (side, users), of_side in runs.items():
        figures = {
            "tok/s": statistics.median(run.tokens_per_s for run in of_side),
            "first token p50 ms": 1000 * statistics.median(second for run in of_side for second in run.ttft_s),
            "first token p99 ms": 1000 * _p99([second for run in of_side for second in run.ttft_s]),
            "between pieces p99 ms": 1000 * _p99([second for run in of_side for second in run.gaps_s]),
        }
        rows.append(Row(f"{side}, {users} users", figures))
    for users in USERS:
        pairs = zip(runs["platform", users], runs["engine", users], strict=True)
        percent = [100 * ours.tokens_per_s / bare.tokens_per_s for ours, bare in pairs]
        rows.append(Row(f"platform over engine, {users} users", {"percent": statistics.median(percent)}))
    medians_ms = {side: 1000 * statistics.median(seconds) for side, seconds in firsts.items()}
    for side, median_ms in medians_ms.items():
        rows.append(Row(f"{side}, one request, nothing else running", {"first token p50 ms": median_ms}))
    overhead_ms = medians_ms["platform"] - medians_ms["engine"]
    rows.append(Row("overhead of the platform", {"first token p50 ms": overhead_ms}))
    goals = {f"platform over engine, {users} users": ("percent", 95.0) for users in USERS}
    report("Platform and bare engine, same model, interleaved", rows, target, goals)
    print(f"goal overhead <= 15 ms: {'reached' if overhead_ms <= 15 else 'missed'} ({overhead_ms:.1f} ms)")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--probes", type=int, default=30, help="single requests for the time to the first token")
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--redis", help="URL of a server whose database may be used; its own is started otherwise")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _messages(number: int) -> list[dict[str, str]]:
    question = QUESTION.format(first=number + 1)
    return [{"role": "system", "content": PERSONA}, {"role": "user", "content": question}]


def _options(number: int, length_tokens: int | None) -> dict[str, float | int]:
    length = length_tokens or LENGTHS_TOKENS[number % len(LENGTHS_TOKENS)]
    return {"max_new_tokens": length, "temperature": 0.0}


class _BareEngine:
    """The engine alone, in a process of its own."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child = context.Pipe()
        self._process = context.Process(target=_serve_engine, args=(child,), daemon=True)

    def __enter__(self) -> _BareEngine:
        self._process.start()
        self._pipe.recv()  # loaded
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def run(self, users: int, length_tokens: int | None) -> Run:
        """One answer for each user, all asked at once."""
        self._pipe.send([(_messages(number), _options(number, length_tokens)) for number in range(users)])
        result = self._pipe.recv()
        assert isinstance(result, Run)
        return result


def _serve_engine(pipe: Connection) -> None:
    from generation.chat.factory import build
    from generation.types import ChatRequest, Delta, Failed, Finished, Message, Sampling

    options = {"data_dir": str(default_data_dir()), "moderation": ModerationSettings().model_dump()}
    engine = build(options, lambda *_: None)
    pipe.send("loaded")
    while True:
        wanted = pipe.recv()
        started_s = time.perf_counter()
        for number, (messages, options) in enumerate(wanted):
            turns = tuple(Message(**message) for message in messages)
            engine.submit(ChatRequest(str(number), turns, Sampling(**options)))
        tokens, firsts, lasts, gaps = 0, {}, {}, []
        while engine.busy:
            for event in engine.step():
                now_s = time.perf_counter() - started_s
                match event:
                    case Delta(request_id):
                        firsts.setdefault(request_id, now_s)
                        gaps.append(now_s - lasts.get(request_id, now_s))
                        lasts[request_id] = now_s
                    case Finished(_, _, usage):
                        tokens += usage.completion_tokens
                    case Failed(_, code):
                        raise SystemExit(f"the engine failed: {code}")
        pipe.send(Run(tokens, time.perf_counter() - started_s, tuple(firsts.values()), tuple(gaps)))


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
        self._process = subprocess.Popen([sys.executable, "-m", "bots.cli", "worker"], env=environment)
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

    def run(self, users: int, length_tokens: int | None) -> Run:
        """One answer for each user, all asked at once."""
        return self._runner.run(self._run(users, length_tokens))

    async def _run(self, users: int, length_tokens: int | None) -> Run:
        started_s = time.perf_counter()
        answers = await asyncio.gather(*(self._ask(number, length_tokens, started_s) for number in range(users)))
        seconds = time.perf_counter() - started_s
        gaps = tuple(gap_s for _, times in answers for gap_s in map(operator.sub, times[1:], times))
        return Run(sum(tokens for tokens, _ in answers), seconds, tuple(times[0] for _, times in answers), gaps)

    async def _ask(self, number: int, length_tokens: int | None, started_s: float) -> tuple[int, list[float]]:
        request = Request(
            platform="bench",
            tenant=f"bench-{number % 4}",
            channel="bench",
            user=f"user-{number}",
            idempotency_key=uuid4().hex,
            reply=ReplyTo(front_end="bench"),
            body=ChatBody(
                messages=tuple(ChatMessage(**message) for message in _messages(number)),
                options=ChatOptions(**_options(number, length_tokens)),
            ),
            created_at_s=time.time(),
        )
        submitted = await self._client.submit(request)
        times: list[float] = []
        async for update in self._client.follow(submitted.job_id):
            match update:
                case TextDelta():
                    times.append(time.perf_counter() - started_s)
                case Ended(event):
                    assert event.type == "finished", event.failure
                    assert event.usage is not None
                    return event.usage.completion_tokens, times or [0.0]
        raise AssertionError("the follower ended without an end")


if __name__ == "__main__":
    main()
