"""One run: stage, load and faults together, and the verdict."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.chaos import load as load_module
from tests.chaos import models, verdict
from tests.chaos.faults import Faults
from tests.chaos.load import Load, prompts
from tests.chaos.plan import plan
from tests.chaos.stage import Stage, Workers, marked, until
from tests.valkey import BINARY
from workers.admission import refund_unqueued

#: Prompts that are let go and not answered, at most; about twice as many as are asked at once.
_MOST_OPEN = 160
#: After the last fault, for something to be answered: longer than any lease, pause or outage of a run.
_SETTLE_S = 150.0
#: Longer than a lease of a delivery and than the platforms' repetitions: what would be said twice is said by then.
_QUIET_S = 4.0
#: A process is measured so long after its start.
_GROWN_UP_S = 4.0
#: One with a model is still loading it by then.
_MODEL_GROWN_UP_S = 60.0


@dataclass(slots=True)
class Report:
    """What a run has shown.

    Attributes:
        violations: One line each; empty if everything holds.
        histories: Of the jobs concerned.
    """

    seed: int
    jobs: int
    kills: int = 0
    lasted_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    histories: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.most_common())
        head = f"chaos: seed {self.seed}, {self.jobs} jobs, {self.kills} kills, {self.lasted_s:.0f} s: {counts}"
        if not self.violations:
            return f"{head}; every invariant holds"
        parts = [head, "faults:", *self.faults, "violations:", *self.violations, "histories:", *self.histories]
        return "\n".join([*parts, f"again: python -m tests.chaos --seed {self.seed} --jobs {self.jobs}"])


async def run(
    seed: int,
    jobs: int,
    kills: int,
    pause_s: float = 1.0,
    workers: int = 3,
    *,
    with_models: bool = False,
    binary: Path = BINARY,
) -> Report:
    """Do it.

    Args:
        seed: Of the plan and the load. Processes and the machine have a will of their own, so the same seed is the same
            trouble, not the same run.
        jobs: Prompts in all.
        kills: Processes killed with SIGKILL, at least.
        pause_s: Mean pause between two faults.
        workers: How many supervisors.
        with_models: Whether a share of the prompts goes to real models, with workers of their own.
        binary: Of the server.
    """
    begun_s = time.monotonic()
    report, asked = Report(seed, jobs), prompts(seed, jobs)
    if with_models:
        asked = load_module.with_models(asked, await asyncio.to_thread(models.alone))
    async with Stage(workers, with_models=with_models, binary=binary) as stage, Load(stage, asked) as load:
        measured = asyncio.create_task(_measure(stage))
        faults = Faults(stage, load)
        faults.log = report.faults
        await _play(seed, faults, load, jobs, kills, pause_s)
        await faults.heal()
        await _settle(load)
        measured.cancel()
        report.kills = faults.kills
        sizes, names = _SIZES.pop(stage.marker, ({}, {}))
        await _judge(report, stage, load)
        report.violations += verdict.growth(sizes, names)
        report.violations += await _end(stage)
        if report.violations:
            report.histories.append(f"logs: {_keep_logs(stage)}")
    report.lasted_s = time.monotonic() - begun_s
    return report


async def _play(seed: int, faults: Faults, load: Load, jobs: int, kills: int, pause_s: float) -> None:
    """Prompts and faults side by side, until there were enough of both."""
    planned, extra = plan(seed, kills, pause_s), random.Random(f"extra {seed}")
    for at, fault in enumerate(planned, 1):
        load.release(-(-jobs * at // len(planned)))
        await asyncio.sleep(fault.pause_s)
        # On a slow machine faults wait for the prompts, or most of these would come when all is well again.
        await until(lambda: len(load.open) < _MOST_OPEN, _SETTLE_S)
        await faults.strike(fault)
    while faults.kills < kills:  # where there was nobody to kill
        await asyncio.sleep(pause_s)
        await faults.strike(extra.choice([each for each in planned if each.name.startswith("kill ")]))


async def _settle(load: Load) -> None:
    left = -1
    while load.open and len(load.open) != left:  # as long as anything is answered
        left = len(load.open)
        await until(lambda: not load.open, _SETTLE_S)
    await asyncio.sleep(_QUIET_S)
    for prompt in load.prompts:
        load.look(prompt)


#: By run: what processes held when they had grown up, and who they are.
_SIZES: dict[str, tuple[dict[int, verdict.Size], dict[int, str]]] = {}


async def _measure(stage: Stage) -> None:
    first_seen: dict[int, float] = {}
    sizes, names = _SIZES.setdefault(stage.marker, ({}, {}))
    while True:
        for seat in stage.seats:
            own = {seat.pid: seat.name}
            if isinstance(seat, Workers):
                own |= {seat.worker: f"worker of {seat.name}", seat.engine: f"engine of {seat.name}"}
            for pid, name in own.items():
                if pid is None:
                    continue
                names[pid] = name
                grown_up_s = _GROWN_UP_S if not isinstance(seat, Workers) or seat.real is None else _MODEL_GROWN_UP_S
                if time.monotonic() - first_seen.setdefault(pid, time.monotonic()) > grown_up_s and pid not in sizes:
                    size = verdict.size_of(pid)
                    if size is not None:
                        sizes[pid] = size
        await asyncio.sleep(0.5)


async def _judge(report: Report, stage: Stage, load: Load) -> None:
    with redis.Redis(unix_socket_path=str(stage.server.socket)) as client:
        wrong, report.counts = verdict.answers(load.prompts)
        report.violations += [f"prompt {prompt.number} ({prompt.job_id}): {why}" for prompt, why in wrong]
        _, twice = verdict.ends(client)
        report.violations += [f"job {job_id} has two terminal events" for job_id in twice]
        if report.counts["blamed for another's crash"] > max(2, verdict.BLAMED_SHARE * report.jobs):
            report.violations.append("too many were blamed for another's crash")
        if report.counts["not heard"] > verdict.UNHEARD_SHARE * report.jobs:
            report.violations.append("too many were not heard")
            wrong += [(each, "not heard") for each in load.prompts if each.job_id and not each.shown][:3]
        await asyncio.sleep(1.0)  # reservations and slots of the last ones
        refund_unqueued(client, age_s=0)  # maintenance does it after minutes
        report.violations += verdict.accounts(client)
        report.violations += verdict.leftovers(client)
        named = {*twice, *verdict.reserving(client)}
        concerned = [prompt for prompt, _ in wrong] + [each for each in load.prompts if each.job_id in named]
        for prompt in concerned[:20]:
            report.histories += verdict.history(stage, client, prompt)


def _keep_logs(stage: Stage) -> Path:
    """Copy the logs of all processes to where they outlive the run; returns where."""
    kept = Path(tempfile.mkdtemp(prefix="chaos-logs-"))
    for seat in stage.seats:
        shutil.copy(seat.log, kept / f"{seat.name}.log")
    shutil.copy(stage.server.directory / "valkey.log", kept / "server.log")
    return kept


async def _end(stage: Stage) -> list[str]:
    """Stop everything; returns who did not stop in an orderly way, and who is still there."""
    codes = await stage.stop()
    wrong = [f"{name} ended with {code} when it was told to stop" for name, code in codes.items() if code != 0]
    stage.server_wanted = False
    stage.server.stop()
    stage.proxy.end()
    return wrong + [f"process {pid} is left behind" for pid in marked(stage.marker)]
