"""What compose/ holds: valid, about things that exist, and its very commands run as plain processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import redis
import yaml

from bots import settings
from bots.cli import COMMANDS
from tests.fake_guild.server import FakeGuild
from tests.fake_guild.world import TOKEN
from tests.integration.test_metrics import announced, get, samples
from tests.integration.test_operator_commands import Operator
from tests.jobs import ask, assert_answered, ends, fair_queue, wait_until
from tests.valkey import BINARY, die_with_parent
from tests.worker_processes import config, supervisor, wait_ready

COMPOSE = Path(__file__).resolve().parents[2] / "compose"
PASSWORD = "a long secret"


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text("utf-8"))
    return loaded


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((COMPOSE / name).read_text("utf-8")))


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that compose mounts."""
    directory = tmp_path_factory.mktemp("secrets")
    for name in compose()["secrets"]:
        (directory / name).write_text(PASSWORD + "\n")
    return directory


@pytest.fixture(scope="module")
def valkey(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server as compose starts it: its script, its configuration, its users."""
    directory = tmp_path_factory.mktemp("v")
    (directory / "valkey-server").symlink_to(BINARY)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    environment = os.environ | {
        "PATH": f"{directory}:{os.environ['PATH']}",
        "SECRETS": str(secrets),
        "TMPDIR": str(directory),
        "DATA": str(directory),
    }
    with (directory / "log").open("wb") as output:
        process = subprocess.Popen(
            ["sh", str(COMPOSE / "valkey/start.sh"), "--port", str(port)],
            env=environment, stdout=output, stderr=output, preexec_fn=die_with_parent,
        )  # fmt: skip
    with redis.Redis(port=port, username="palaver", password=PASSWORD) as client:

        def answers() -> bool:
            with contextlib.suppress(redis.ConnectionError):
                return bool(client.ping())
            assert process.poll() is None, (directory / "log").read_text()
            return False

        wait_until(answers, what="for the server")
    yield f"redis://palaver@127.0.0.1:{port}/0"
    process.kill()
    process.wait(10)


@contextlib.contextmanager
def service(name: str, data_dir: Path, secrets: Path, **changes: str) -> Iterator[subprocess.Popen[bytes]]:
    """A service's own command in its own environment, with other addresses."""
    wanted = compose()["services"][name]
    environment = {key: value.replace("/run/secrets", str(secrets)) for key, value in wanted["environment"].items()}
    foreign = ("PALAVER_", "REDIS", "DISCORD_", "SLACK_")
    own = {key: value for key, value in os.environ.items() if not key.upper().startswith(foreign)}
    changes |= {
        "PALAVER_DATA_DIR": str(data_dir),
        "PALAVER_METRICS__PORT": "0",
        "PALAVER_METRICS__ADDRESS": "127.0.0.1",
    }
    with (data_dir / f"{name}.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bots.cli", *wanted["command"]],
            env=own | environment | changes, stdout=output, stderr=output, preexec_fn=die_with_parent,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait(20)


def test_the_compose_file_holds_to_its_schema_and_names_what_it_declares() -> None:
    loaded = compose()
    schema = json.loads((Path(__file__).parents[1] / "schemas/compose-spec.json").read_text("utf-8"))
    jsonschema.validate(loaded, schema)
    for name, each in loaded["services"].items():
        assert set(each.get("secrets", ())) <= set(loaded["secrets"]), name
        for volume in each.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in loaded["volumes"] or (COMPOSE / source).exists(), volume
        if each["image"].startswith("${PALAVER"):
            assert each["command"][0] in COMMANDS


def test_every_variable_is_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secrets: Path) -> None:
    monkeypatch.setenv("PALAVER_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    environments = [
        each["environment"] for each in compose()["services"].values() if "REDIS_URL" in each.get("environment", {})
    ]
    (kubernetes,) = [each["data"] for each in documents("kubernetes/palaver.yaml") if each["kind"] == "ConfigMap"]
    assert len(environments) == 4
    for environment in [*environments, kubernetes]:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, re.sub("/run/secrets(/palaver)?", str(secrets), value))
            loaded = settings.load()
            assert loaded.redis.password is not None
            assert loaded.redis.password.get_secret_value() == PASSWORD
            assert loaded.metrics.port == 9464


def test_units_and_examples_run_commands_that_exist() -> None:
    units = list((COMPOSE / "systemd").glob("*.service"))
    assert len(units) == 3
    commands = [
        re.findall(r"^ExecStart=/opt/palaver/bin/palaver (.+)$", unit.read_text(), re.MULTILINE) for unit in units
    ]
    lines = [shlex.split(line) for (line,) in commands]
    deployments = [each for each in documents("kubernetes/palaver.yaml") if each["kind"] == "Deployment"]
    all_ports: set[str] = set()
    for deployment in deployments:
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        lines.append(container["args"])
        ports = {port["name"] for port in container["ports"]}
        all_ports |= ports
        probes = [value for name, value in container.items() if name.endswith("Probe")]
        assert {probe["httpGet"]["port"] for probe in probes} <= ports
        assert {probe["httpGet"]["path"] for probe in probes} <= {"/readyz", "/healthz"}
    for line in lines:
        asked = [sys.executable, "-m", "bots.cli", *line, "--help"]
        assert subprocess.run(asked, capture_output=True, check=False).returncode == 0, line
    (scaled,) = documents("kubernetes/keda.yaml")
    (monitor,) = documents("kubernetes/monitoring.yaml")
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} == all_ports
    assert scaled["spec"]["scaleTargetRef"]["name"] in {each["metadata"]["name"] for each in deployments}


def expressions() -> list[str]:
    found = [rule["expr"] for group in documents("prometheus/alerts.yml")[0]["groups"] for rule in group["rules"]]
    dashboard = json.loads((COMPOSE / "grafana/palaver.json").read_text("utf-8"))
    found += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [
        *found,
        *(trigger["metadata"]["query"] for trigger in documents("kubernetes/keda.yaml")[0]["spec"]["triggers"]),
    ]


async def test_the_commands_of_compose_run_and_export_what_is_asked_for(
    valkey: str, secrets: Path, tmp_path: Path
) -> None:
    async with FakeGuild() as guild:
        addresses = {
            "REDIS_URL": valkey,
            "DISCORD_API_BASE_URL": guild.api_url,
            "DISCORD_GATEWAY_URL": guild.gateway_url,
            "DISCORD_CDN_BASE_URL": guild.cdn_url,
        }
        (secrets / "discord_token").write_text(TOKEN)
        with (
            service("worker-cpu", tmp_path, secrets, **addresses),
            service("discord", tmp_path, secrets, **addresses) as bot,
        ):
            supervisor_url, bot_url, worker_url = await asyncio.gather(
                *(asyncio.to_thread(announced, tmp_path, name) for name in ("supervisor", "discord", "chat-worker"))
            )
            status, _ = await asyncio.to_thread(get, f"{bot_url}/readyz")
            assert status == 200
            there: set[str] = set()
            for url in (supervisor_url, bot_url, worker_url):
                _, text = await asyncio.to_thread(get, f"{url}/metrics")
                there |= set(re.findall(r"^# TYPE (palaver_\w+)", text, re.MULTILINE))
            for expression in expressions():
                for name in re.findall(r"palaver_\w+", expression):
                    assert name in there or re.sub("_(bucket|count|sum)$", "", name) in there, expression
            found = await asyncio.to_thread(samples, bot_url)
            assert found["palaver_redis_up",] == 1
            assert found["palaver_queue_jobs", "chat"] == 0
            assert found["palaver_redis_maxmemory_bytes",] == 2**30
            bot.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(bot.wait, 30) == 0
    log = (tmp_path / "discord.log").read_text()
    assert PASSWORD not in log
    assert all(json.loads(line)["level"] for line in log.splitlines())


def test_a_user_with_the_documented_rights_can_do_all_and_no_more(valkey: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(valkey, password=PASSWORD) as client:
        queue = fair_queue(client)
        with_password = valkey.replace("palaver@", f"palaver:{PASSWORD.replace(' ', '%20')}@")
        with supervisor(config(with_password)) as process:
            wait_ready(client)
            ids = [ask(queue, f"k{i}", tokens=3) for i in range(3)]
            failed = ask(queue, "failed", retries=0, refuse="no")
            wait_until(lambda: {*ids, failed} <= set(ends(client)))
            assert_answered(client, ids)
            time.sleep(1.0)  # a round of maintenance
            operator = Operator(with_password, tmp_path)
            for command in (("status",), ("top", "--once"), ("doctor",), ("jobs", "show", failed), ("usage",)):
                operator(*command)
            operator("jobs", "requeue", failed)
            process.signal(signal.SIGTERM)
            assert process.wait() == 0
        for forbidden in (
            ["FLUSHALL"],
            ["CONFIG", "SET", "dir", "/"],
            ["SET", "elsewhere", "1"],
            ["ACL", "LIST"],
            ["SHUTDOWN"],
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*forbidden)
    with (
        redis.Redis.from_url(valkey.replace("palaver@", ""), socket_timeout=5) as stranger,
        pytest.raises(redis.RedisError),
    ):
        stranger.ping()
