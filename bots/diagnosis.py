"""What may keep Palaver from working here, each finding with its remedy. Changes nothing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import redis

from bots import tuning, up_wants
from bots.settings import Settings
from generation import catalog, devices
from generation.errors import GenerationError
from generation.image.config import EMBEDDED_MODEL
from workers import device_probe, redis_connection
from workers.errors import RedisError, WorkersError

Level = Literal["ok", "warning", "error"]

#: A clock that is off by more than this makes leases, limits and the platforms' signatures go wrong.
_CLOCK_OFF_S = 2.0
#: The platforms' own clock is known to the second, and the answer takes its time.
_PLATFORM_CLOCK_OFF_S = 30.0
_SLOW_REDIS_S = 0.02
_LITTLE_DISK_BYTES = 2 * 2**30
_PLATFORM_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        level: ``error`` if something will not work.
        found: How it is.
        remedy: What to do, where there is anything to do.
    """

    name: str
    level: Level
    found: str
    remedy: str = ""


def diagnose(settings: Settings) -> Iterator[Finding]:
    """Look at everything, one thing after the other."""
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _python, _torch, _devices, _threads, _disk, _redis, _models, _adapters, _discord, _slack,
    )  # fmt: skip
    for check in checks:
        yield from check(settings)


def _python(settings: Settings) -> Iterator[Finding]:
    del settings
    yield Finding("python", "ok", ".".join(map(str, sys.version_info[:3])))


def _torch(settings: Settings) -> Iterator[Finding]:
    del settings
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        remedy = "Only front-ends run here; for workers: pip install 'palaver[worker,image]'."
        yield Finding("torch", "warning", "not installed", remedy)
        return
    if version.endswith("+cpu") and shutil.which("nvidia-smi"):
        yield Finding(
            "torch", "warning", f"{version}, beside an NVIDIA GPU", "Install the CUDA build: pip install torch."
        )
    else:
        yield Finding("torch", "ok", version)


def _devices(settings: Settings) -> Iterator[Finding]:
    count = device_probe.cuda_count()
    wanted = {settings.chat.device, settings.image.device}
    if count:
        yield Finding("devices", "ok", f"{count} CUDA devices: {_gpu_names()}")
    elif any(name.startswith("cuda") for name in wanted):
        remedy = "Look at nvidia-smi and CUDA_VISIBLE_DEVICES, or set chat.device and image.device to auto."
        yield Finding("devices", "error", "no CUDA device, and one is configured", remedy)
    else:
        yield Finding("devices", "ok", f"CPU, {devices.physical_cores()} cores")


def _gpu_names() -> str:
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "nvidia-smi does not answer"
    return "; ".join(listing.stdout.strip().splitlines()) or "none named"


def _threads(settings: Settings) -> Iterator[Finding]:
    cores = devices.physical_cores()
    wanted = max(settings.chat.threads, settings.image.threads)
    spin = os.environ.get("GOMP_SPINCOUNT", "0")
    by_hand = os.environ.get("OMP_NUM_THREADS", "")
    if wanted > cores:
        yield Finding("threads", "warning", f"{wanted} set, {cores} cores", "Lower chat.threads and image.threads.")
    elif by_hand.isdigit() and int(by_hand) > cores:
        yield Finding("threads", "warning", f"OMP_NUM_THREADS={by_hand}, {cores} cores", "Unset OMP_NUM_THREADS.")
    elif spin != "0":
        remedy = "Unset GOMP_SPINCOUNT: threads that spin while they wait slow down every other process."
        yield Finding("threads", "warning", f"GOMP_SPINCOUNT={spin}", remedy)
    else:
        yield Finding("threads", "ok", f"{wanted or by_hand or cores} of {cores} cores")


def _disk(settings: Settings) -> Iterator[Finding]:
    place = settings.data_dir
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    found = f"{free / 2**30:.1f} GiB free at {settings.data_dir}"
    if not os.access(place, os.W_OK):
        yield Finding("disk", "error", f"{place} cannot be written", "Set PALAVER_DATA_DIR to a folder of this user.")
    elif free < _LITTLE_DISK_BYTES:
        yield Finding(
            "disk", "warning", found, "Free space, `palaver models remove` what is not used, or move data_dir."
        )
    else:
        yield Finding("disk", "ok", found)


def _redis(settings: Settings) -> Iterator[Finding]:
    try:
        with redis_connection.connect(settings.redis, settings.data_dir) as client:
            begun_s = time.monotonic()
            with redis_connection.mapped_errors(client):
                client.ping()
                info: dict[str, Any] = client.info("all")
                seconds, micros = client.time()
            took_s = time.monotonic() - begun_s
            yield from _server(client, info, settings)
    except RedisError as error:
        if settings.redis.url is None:
            yield Finding("redis", "ok", "the embedded server does not run; `palaver up` starts it")
        else:
            yield Finding(
                "redis", "error", str(error), "Correct REDIS_URL and the settings redis.*, or start the server."
            )
        return
    except WorkersError as error:
        yield Finding("redis", "error", str(error), "Correct REDIS_URL and the settings redis.*.")
        return
    if took_s > 3 * _SLOW_REDIS_S:
        yield Finding("redis latency", "warning", f"{took_s / 3 * 1000:.0f} ms", "Run the server near its workers.")
    off_s = seconds + micros / 1e6 - time.time()
    remedy = "Synchronise both clocks with NTP: timedatectl set-ntp true."
    level: Level = "ok" if abs(off_s) < _CLOCK_OFF_S else "error"
    yield Finding("clock", level, f"{off_s:+.2f} s to the Redis server's", "" if level == "ok" else remedy)


def _server(client: redis.Redis, info: dict[str, Any], settings: Settings) -> Iterator[Finding]:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version") or "?")
    kind = "embedded" if settings.redis.url is None else "external"
    try:
        redis_connection.check(client)
        yield Finding("redis", "ok", f"{name} {version}, {kind}")
    except WorkersError as error:
        yield Finding("redis", "error", f"{name} {version}: {error}", "See the finding.")
    if not int(info.get("aof_enabled", 0)):
        remedy = "CONFIG SET appendonly yes and CONFIG REWRITE: without it a restart loses every job."
        yield Finding("redis persistence", "warning", "no append-only file", remedy)
    elif info.get("aof_last_write_status", "ok") != "ok" or info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield Finding("redis persistence", "error", "its last write failed", "Look at the server's log and its disk.")
    else:
        yield Finding("redis persistence", "ok", "append-only file")
    most, used = int(info.get("maxmemory") or 0), int(info["used_memory"])
    found = f"{used / 2**20:.0f} MiB used" + (f" of {most / 2**20:.0f}" if most else ", no maxmemory")
    if most and used > 0.8 * most:
        yield Finding("redis memory", "warning", found, "Raise maxmemory, or lower artifacts.redis_total_bytes.")
    else:
        yield Finding("redis memory", "ok", found)


def _models(settings: Settings) -> Iterator[Finding]:
    if settings.chat.backend == "openai":
        yield Finding("chat model", "ok", f"at {settings.chat.api_base_url}")
    else:
        for model in (settings.chat.model, *settings.chat.more_models):
            yield _model("chat model", model, settings)
    missing = up_wants.missing(settings, "image")
    if missing:
        yield Finding("image model", "warning", "not here", missing)
        return
    for model in (settings.image.model, *settings.image.more_models):
        if model == EMBEDDED_MODEL:
            yield Finding("image model", "ok", EMBEDDED_MODEL)
        else:
            yield _model("image model", model, settings)


def _model(name: str, model: str, settings: Settings) -> Finding:
    try:
        location = catalog.resolve(model, settings.data_dir)
    except GenerationError as error:
        return Finding(name, "error", str(error), f"`palaver models list` shows names; set {name.split()[0]}.model.")
    if location.directory is None:
        return Finding(name, "warning", f"{model} is not here yet", f"palaver models pull {model}")
    return Finding(name, "ok", model)


def _adapters(settings: Settings) -> Iterator[Finding]:
    try:
        count, broken = tuning.broken_adapters(settings)
    except GenerationError as error:
        yield Finding("adapters", "error", str(error), "Look at knowledge.url; until then models answer alone.")
        return
    for adapter_id, reason in broken.items():
        yield Finding("adapters", "error", f"{adapter_id}: {reason}", f"palaver adapters rm {adapter_id}")
    if count and not broken:
        yield Finding("adapters", "ok", f"{count} in service")


def _discord(settings: Settings) -> Iterator[Finding]:
    if settings.discord.token is None:
        return
    request = urllib.request.Request(  # noqa: S310 - the operator's own setting
        f"{settings.discord.api_base_url.rstrip('/')}/users/@me",
        headers={"Authorization": f"Bot {settings.discord.token.get_secret_value()}", "User-Agent": "palaver doctor"},
    )
    remedy = "Reset the token in Discord's developer portal and set DISCORD_TOKEN; see docs/discord.md."
    yield from _platform("discord token", request, lambda said: "id" in said, remedy)


def _slack(settings: Settings) -> Iterator[Finding]:
    remedy = "Reinstall the app and set SLACK_BOT_TOKEN; see docs/slack.md."
    for at, token in enumerate(settings.slack.bot_tokens, start=1):
        request = urllib.request.Request(  # noqa: S310 - the operator's own setting
            f"{settings.slack.api_base_url}auth.test", b"", {"Authorization": f"Bearer {token}"}
        )
        yield from _platform(f"slack token {at}", request, lambda said: bool(said.get("ok")), remedy)


def _platform(
    name: str, request: urllib.request.Request, accepted: Callable[[dict[str, Any]], bool], remedy: str
) -> Iterator[Finding]:
    place = request.full_url.partition("?")[0]
    try:
        with urllib.request.urlopen(request, timeout=_PLATFORM_TIMEOUT_S) as response:  # noqa: S310 - as above
            said, date = json.loads(response.read()), response.headers.get("Date")
    except urllib.error.HTTPError as error:
        level: Level = "error" if error.code in (401, 403) else "warning"
        yield Finding(name, level, f"{place} answered {error.code}", remedy if level == "error" else "Try again later.")
        return
    except (OSError, ValueError) as error:
        yield Finding(name, "error", f"{place} cannot be reached ({type(error).__name__})", "Check network and proxy.")
        return
    if accepted(said):
        yield Finding(name, "ok", "accepted")
    else:
        yield Finding(name, "error", f"not accepted ({str(said.get('error', 'no reason'))[:60]})", remedy)
    off_s = parsedate_to_datetime(date).timestamp() - time.time() if date else 0.0
    if abs(off_s) > _PLATFORM_CLOCK_OFF_S:
        yield Finding(
            "clock", "error", f"{off_s:+.0f} s to the platform's", "Synchronise this machine's clock with NTP."
        )
