"""What must be true when everything has calmed down; each function returns one line for every violation."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import redis

from bots.delivery import wording
from tests import embedded_model
from tests.chaos.load import FRONT_ENDS, Prompt
from tests.chaos.stage import Stage
from workers import keys
from workers.contract import Event, decode_event

#: Keys that may stay without an expiry, and why each of them stays small.
LASTING_KEYS = {
    r"rq:queues": "names of the queues: one for each kind of model",
    r"rq:workers(:(chat|image)[\w.-]*)?": "running workers; rq drops those whose heartbeat has stopped",
    r"rq:(finished|failed|canceled):(chat|image)[\w.-]*": "ended jobs by expiry; cleaned as they expire",
    r"rq:clean_registries:(chat|image)[\w.-]*": "rq's lock for cleaning",
    r"palaver:workers": "running workers; entries are dropped when their heartbeat is old",
    r"palaver:fair:(chat|image)[\w.-]*:(state|finish)": "virtual time; tenants only while they are ahead of it",
    r"palaver:rejected": "bounded by length",
    r"palaver:admitted": "admissions of the last minutes; emptied by maintenance",
}
#: What a person may read in place of an answer that was promised before its job had reached the queue.
NOT_ACCEPTED = (wording.LOST, wording.BUSY)
_BY_MODELS = {"words": "", "model": "of them by a real model", "picture": "of them pictures"}
_CRASHED = re.compile(r"stopped because the model crashed \d+ times")
#: Limits are never reached here, but a clock that is set back counts them as used up for a moment.
_LIMITED = re.compile(r"limit is used up\. Try again in 1 s")
#: Of all prompts; a death that hits the very step in which a suspect is on trial blames the wrong one, as
#: docs/architecture.md says, and a job that is alone at two deaths is taken for their reason.
BLAMED_SHARE = 0.02
#: Of all prompts: those that came while no process of their front-end listened.
UNHEARD_SHARE = 0.04
#: What a process may hold beyond what it has a few seconds after its start: a front-end's pool of connections to Redis
#: alone grows to 64 under load, and keeps them.
GROWTH = {"threads": 40, "descriptors": 100, "memory_mb": 80}


@dataclass(frozen=True, slots=True)
class Size:
    """What a process holds."""

    threads: int
    descriptors: int
    memory_mb: float


def size_of(pid: int) -> Size | None:
    """None if the process is gone."""
    place = Path(f"/proc/{pid}")
    try:
        status = (place / "status").read_text()
        descriptors = sum(1 for _ in (place / "fd").iterdir())
    except OSError:
        return None
    number = {name: int(value) for name, value in re.findall(r"^(Threads|VmRSS):\s+(\d+)", status, re.MULTILINE)}
    return Size(number.get("Threads", 0), descriptors, number.get("VmRSS", 0) / 1024)


def answers(prompts: Iterable[Prompt]) -> tuple[list[tuple[Prompt, str]], Counter[str]]:
    """Whether every accepted prompt has exactly one final answer, the right one.

    Returns:
        Prompts that have not, with what is wrong; and how the others were answered.
    """
    wrong: list[tuple[Prompt, str]] = []
    counts: Counter[str] = Counter()
    for prompt in prompts:
        shown = prompt.shown
        if len(shown) > 1 and wording.BUSY in shown:
            # Told that it could not be taken, as far as anybody knew, and then it was there after all.
            shown = [each for each in shown if each != wording.BUSY]
            counts["told that the queue is busy"] += 1
        if prompt.unfinished:
            wrong.append((prompt, f"{prompt.unfinished} messages never became final"))
        elif len(shown) > 1:
            wrong.append((prompt, f"answered {len(shown)} times: {[each[:60] for each in shown]}"))
        elif not shown and (prompt.accepted or prompt.promised):
            wrong.append((prompt, "never answered"))
        elif not shown:
            counts["not heard"] += 1
        elif shown[0] == prompt.right and not prompt.poison:
            counts["answered"] += 1
            counts[_BY_MODELS[prompt.kind]] += prompt.kind != "words"
        elif _CRASHED.search(shown[0]):
            counts["poison found" if prompt.poison else "blamed for another's crash"] += 1
        elif not prompt.accepted and (shown[0] in NOT_ACCEPTED or _LIMITED.search(shown[0])):
            counts["not accepted, and told so"] += 1
        else:
            wrong.append((prompt, f"shown {shown[0][:120]!r}"))
    return wrong, +counts


def ends(client: redis.Redis) -> tuple[dict[str, Event], list[str]]:
    """The terminal event of each job, and which jobs ended twice."""
    found: dict[str, Event] = {}
    twice = []
    for front_end in FRONT_ENDS.values():
        for _, fields in client.xrange(keys.events(front_end)):
            event = decode_event(fields[b"event"])
            if event.terminal:
                if event.job_id in found:
                    twice.append(event.job_id)
                found[event.job_id] = event
    return found, twice


def accounts(client: redis.Redis) -> list[str]:
    """Whether every tenant's account says what its answers took, and nothing is reserved any more."""
    used: Counter[str] = Counter()
    gpu_s: Counter[str] = Counter()
    for name in client.scan_iter(keys.live("*"), count=1000):
        raw = client.hget(name, "final")
        if raw is None:
            continue
        event = decode_event(raw)
        if event.type == "finished" and event.usage is not None:
            tenant = event.job_id.partition("__")[0]
            used[tenant] += 1
            gpu_s[tenant] += event.usage.gpu_s
    said: Counter[str] = Counter()
    said_gpu_s: Counter[str] = Counter()
    wrong = []
    for name in client.scan_iter(keys.usage("*", None, "????-??-??"), count=1000):
        owner = name.decode().removeprefix(keys.usage("", None, "").rstrip(":")).strip(":").rpartition(":")[0]
        fields = client.hgetall(name)
        if int(fields.get(b"reserved_us", 0)):
            wrong.append(f"{owner} has {int(fields[b'reserved_us']) / 1e6:.3f} GPU-seconds reserved for nothing")
        if ":" not in owner:
            said[owner] += sum(int(value) for name, value in fields.items() if name.endswith(b":jobs"))
            said_gpu_s[owner] += int(fields.get(b"gpu_us", 0)) / 1e6
    for tenant in used | said:
        if used[tenant] != said[tenant]:
            wrong.append(f"{tenant} got {used[tenant]} answers and its account says {said[tenant]}")
        elif abs(gpu_s[tenant] - said_gpu_s[tenant]) > 1e-5 * (1 + used[tenant]):
            wrong.append(f"{tenant} used {gpu_s[tenant]:.6f} GPU-seconds, its account says {said_gpu_s[tenant]:.6f}")
    return wrong


def reserving(client: redis.Redis) -> list[str]:
    """The jobs whose admission still holds a part of a budget."""
    names = client.scan_iter(keys.admission("*"), count=1000)
    holding = [name.decode() for name in names if b" reserved\n" in (client.get(name) or b"")]
    return [name.removeprefix(keys.admission("")) for name in holding]


def leftovers(client: redis.Redis) -> list[str]:
    """Keys that will stay for ever, and jobs or slots that nobody works on."""
    wrong = []
    allowed = [re.compile(pattern) for pattern in LASTING_KEYS]
    for raw in client.scan_iter("*", count=1000):
        name = raw.decode()
        if client.ttl(raw) == -1 and not any(pattern.fullmatch(name) for pattern in allowed):
            wrong.append(f"key without expiry: {name} ({client.type(raw).decode()})")
    parts = ("running", "in_flight", "ring", "capped", "parked", "heads")
    queues = ("chat", keys.queue("chat", embedded_model.NAME), "image")
    names = [keys.fair(queue, part) for queue in queues for part in parts]
    return wrong + [f"{name} is not empty" for name in names if client.exists(name)]


def growth(before: dict[int, Size], names: dict[int, str]) -> list[str]:
    """Processes that hold much more than a few seconds after their start."""
    wrong = []
    for pid, first in before.items():
        now = size_of(pid)
        if now is None:
            continue
        for what, most in GROWTH.items():
            grown = getattr(now, what) - getattr(first, what)
            if grown > most:
                wrong.append(f"{names.get(pid, '?')} (process {pid}) has {grown:.0f} more {what} than after its start")
    return wrong


def history(stage: Stage, client: redis.Redis, prompt: Prompt) -> list[str]:
    """What is known about one job: events, state, and the lines of logs that name it."""
    lines = [f"prompt {prompt.number} by {prompt.road}, job {prompt.job_id}, accepted {prompt.accepted}, {prompt.text}"]
    for _, fields in client.xrange(keys.events(FRONT_ENDS[prompt.road])):
        event = decode_event(fields[b"event"])
        if event.job_id == prompt.job_id:
            said = f" {event.failure.code}" if event.failure else ""
            lines.append(
                f"  {event.at_s:.2f} {event.type}{said}, attempt {event.attempt}, execution {event.execution_id}"
            )
    for name in (
        keys.live(prompt.job_id),
        f"rq:job:{prompt.job_id}",
        keys.posted(FRONT_ENDS[prompt.road], prompt.job_id),
    ):
        fields = {key.decode(): value[:80] for key, value in client.hgetall(name).items() if key not in _BULKY}
        lines.append(f"  {name}: {json.dumps({key: repr(value) for key, value in fields.items()})}")
    admission, admitted_s = client.get(keys.admission(prompt.job_id)), client.zscore(keys.admitted(), prompt.job_id)
    lines.append(f"  admission: {admission!r}, awaited in the queue since {admitted_s}, shown: {prompt.shown}")
    front_end, now_s = FRONT_ENDS[prompt.road], client.time()[0]
    owner = client.hget(keys.promise(front_end, prompt.job_id), "owner")
    lease_ms = client.zscore(keys.promises(front_end), prompt.job_id)
    left = "none" if lease_ms is None else f"{lease_ms / 1000 - now_s:.1f} s"
    kept = bool(client.hexists(keys.posted(front_end, prompt.job_id), "final"))
    lines.append(f"  promise: kept {kept}, owner {owner!r}, lease left: {left}")
    if prompt.road == "slack":
        calls = [each for each in stage.workspace.calls if each.args.get("channel") == f"D{prompt.number}"]
        lines += [f"  {each.at_s - prompt.asked_s:.2f} s after: {each.method}: {each.answer}" for each in calls]
    for seat in stage.seats:
        with seat.log.open(errors="replace") as log:
            lines += [
                f"  {seat.name}: {line.rstrip()[:200]}" for line in log if prompt.job_id.rpartition("__m")[2] in line
            ][-12:]
    return lines


_BULKY = (b"data", b"final", b"description")
