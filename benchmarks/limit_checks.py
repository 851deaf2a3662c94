"""Limit checks a second: tenant, channel and user decided in one atomic call, with deduplication and a refund record.

Run ``python -m benchmarks.limit_checks [--json FILE] [--redis URL]``. Without a URL a server of its own is started.
All rows take turns in short rounds, so that a noisy machine slows all of them alike. A bare PING shows what the round
trip alone costs: ``of_ping`` is the share of it that is left. One connection asks at a time; the rows ``x 4`` have four
processes with a connection each, as several front-ends have, and count what they do together. The alternatives are
fixed windows: three counters in one pipeline, and three round trips as a library with one storage call a limit makes
them. Neither is atomic; the last column shows what that means: how much of a tenant's budget of 95 is left for others
after one user, allowed 5, has asked 100 times.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import multiprocessing
import statistics
import time
from typing import TYPE_CHECKING

import redis

from benchmarks.measuring import Row, parse, report, server_cpu_s, server_url
from workers import keys
from workers.admission import Allowance, Limit, admit_now
from workers.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[str, "dict[str, int]"], bool]

ROUND = 500
WIDE = {"tenant": 10**6, "channel": 10**6, "user": 10**6}
NARROW = {"tenant": 100, "channel": 50, "user": 5}
USERS = 200
FRONT_ENDS = 4


def gcra(client: redis.Redis, owners: str = "") -> Check:
    serial = itertools.count()
    allowance = functools.cache(lambda name, burst: Allowance(name, burst / 60, burst))  # as in ``workers.client``

    def check(owner: str, bursts: dict[str, int]) -> bool:
        limits = [Limit(keys.limit("bench", name, owner), allowance(name, burst)) for name, burst in bursts.items()]
        with contextlib.suppress(RefusedError):
            admit_now(client, f"{owners}{owner}__{next(serial)}", limits, record_ttl_s=60)
            return True
        return False

    return check


def windows(client: redis.Redis, *, pipelined: bool) -> Check:
    def check(owner: str, bursts: dict[str, int]) -> bool:
        names = [f"window:{pipelined}:{name}:{owner}" for name in bursts]
        if pipelined:
            with client.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.incr(name)
                    pipeline.expire(name, 60, nx=True)
                counts = pipeline.execute()[::2]
            return all(count <= burst for count, burst in zip(counts, bursts.values(), strict=True))
        for name, burst in zip(names, bursts.values(), strict=True):
            count = client.incr(name)
            if count == 1:
                client.expire(name, 60)
            if count > burst:
                return False
        return True

    return check


def left_after_spam(check: Check, name: str) -> int:
    """Of a tenant's 100, what one user's 100 tries (5 allowed) leave to the others."""
    owner = f"spam-{name.split()[0]}"
    for _ in range(100):
        check(owner, NARROW)
    return sum(check(owner, {"tenant": NARROW["tenant"]}) for _ in range(120))


def ask_for(seconds: float, url: str, number: int, kind: str) -> float:
    """One front-end of several: asks one after the other for a while; returns how many a second."""
    with redis.Redis.from_url(url) as client:
        check = gcra(client, f"front-end-{number}-{time.time_ns()}-")
        asked, began = 0, time.perf_counter()
        while (took_s := time.perf_counter() - began) < seconds:
            for _ in range(20):
                asked += 1
                if kind == "PING":
                    client.ping()
                else:
                    assert check(f"{number}-{asked % USERS}", WIDE)
        return asked / took_s


def several(url: str, rounds: int) -> list[Row]:
    """Four connections at once, checks and PINGs in turn; the median round of each."""
    found: dict[str, list[float]] = {"atomic GCRA": [], "PING": []}
    with multiprocessing.get_context("spawn").Pool(FRONT_ENDS) as pool:
        pool.starmap(ask_for, [(0.1, url, number, "PING") for number in range(FRONT_ENDS)], chunksize=1)
        for _ in range(rounds):
            for kind, rates in found.items():
                calls = [(0.5, url, number, kind) for number in range(FRONT_ENDS)]
                rates.append(sum(pool.starmap(ask_for, calls, chunksize=1)))
    medians = {kind: statistics.median(rates) for kind, rates in found.items()}
    return [
        Row(f"{kind} x {FRONT_ENDS}", {"checks_per_s": rate, "of_ping": rate / medians["PING"]})
        for kind, rate in medians.items()
    ]


def one_by_one(client: redis.Redis, number_of_checks: int) -> list[Row]:
    """One connection: every way of checking, and a bare PING, in turn."""
    checks: dict[str, Check] = {
        "atomic GCRA": gcra(client),
        "windows, one pipeline": windows(client, pipelined=True),
        "windows, three calls": windows(client, pipelined=False),
    }
    took_s: dict[str, list[float]] = {name: [] for name in (*checks, "PING")}
    server_s = dict.fromkeys(checks, 0.0)
    for start in range(0, number_of_checks, ROUND):
        for name, check in checks.items():
            server_s[name] -= server_cpu_s(client)
            for number in range(start, start + ROUND):
                began = time.perf_counter()
                allowed = check(f"{name[:8].strip()}-{number % USERS}", WIDE)
                took_s[name].append(time.perf_counter() - began)
                assert allowed
            server_s[name] += server_cpu_s(client)
        for _ in range(ROUND):
            began = time.perf_counter()
            client.ping()
            took_s["PING"].append(time.perf_counter() - began)
    rows = []
    for name, seconds in took_s.items():
        figures = {
            "checks_per_s": len(seconds) / sum(seconds),
            "of_ping": sum(took_s["PING"]) / sum(seconds),
            "p50_us": statistics.median(seconds) * 1e6,
            "p99_us": statistics.quantiles(seconds, n=100)[98] * 1e6,
        }
        if name in checks:
            figures["server_us"] = server_s[name] / len(seconds) * 1e6
            figures["tenant_left_of_95"] = left_after_spam(checks[name], name)
        rows.append(Row(name, figures))
    return rows


def main() -> None:
    options = parse(__doc__, checks=20_000)
    with server_url(options.redis) as url, redis.Redis.from_url(url) as client:
        client.flushdb()
        rows = one_by_one(client, options.checks)
        rows += several(url, rounds=max(1, options.checks // 4_000))
        client.flushdb()
    report(
        "Limit checks over tenant + channel + user", rows, options.json, goals={"atomic GCRA": ("checks_per_s", 8_000)}
    )
    ours, ping = (next(row.figures for row in rows if row.name == name) for name in ("atomic GCRA", "PING"))
    print(
        f"undisturbed, by the median round trip: {1e6 / ours['p50_us']:,.0f} checks/s, where PING alone makes "
        f"{1e6 / ping['p50_us']:,.0f}"
    )


if __name__ == "__main__":
    main()
