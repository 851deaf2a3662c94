from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import redis.asyncio

from tests.valkey import BINARY, ValkeyProcess, die_with_parent
from workers import embedded_redis
from workers.errors import RedisUnavailableError, RedisUnsuitableError, SettingsError
from workers.redis_connection import check, connect, connect_async, mapped_errors
from workers.settings import RedisSettings

NOWHERE = Path("unused")
PASSWORD = "correct horse/battery@staple"
DEADLINE_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(**config: str) -> Iterator[ValkeyProcess]:
    process = ValkeyProcess(persist=False, config=config).start()
    try:
        yield process
    finally:
        process.remove()


async def both_work(settings: RedisSettings) -> None:
    with connect(settings, NOWHERE) as client:
        check(client)
        client.set("sync", b"\xff")
        assert client.get("sync") == b"\xff"
    async with connect_async(settings, NOWHERE) as client:
        assert await client.get("sync") == b"\xff"


def failure(settings: RedisSettings, kind: type[Exception] = RedisUnavailableError) -> str:
    with connect(settings, NOWHERE) as client, pytest.raises(kind) as raised:
        check(client)
    assert "\n" not in str(raised.value)
    # The library's error, which may quote more than the user should see, is not shown with ours.
    assert raised.value.__context__ is None or raised.value.__suppress_context__
    return str(raised.value)


# Addresses


async def test_a_unix_socket(server: ValkeyProcess) -> None:
    await both_work(RedisSettings(url=server.url))


async def test_the_embedded_server_is_found_by_its_data_directory(tmp_path: Path) -> None:
    settings = RedisSettings()
    with pytest.raises(RedisUnavailableError, match="No embedded server runs"):
        connect(settings, tmp_path)
    with embedded_redis.ensure(tmp_path, settings), connect(settings, tmp_path) as client:
        check(client)
        async with connect_async(settings, tmp_path) as other:
            assert await other.ping()


async def test_a_password_in_the_url_or_beside_it_which_wins() -> None:
    port = free_port()
    with running(port=str(port), requirepass=f'"{PASSWORD}"'):
        quoted = "correct%20horse%2Fbattery%40staple"
        await both_work(RedisSettings(url=f"redis://:{quoted}@127.0.0.1:{port}"))
        await both_work(RedisSettings(url=f"redis://127.0.0.1:{port}/0", password=PASSWORD))
        await both_work(RedisSettings(url=f"redis://default:wrong@127.0.0.1:{port}", password=PASSWORD))
        for settings in (
            RedisSettings(url=f"redis://:wrong-{quoted}@127.0.0.1:{port}"),
            RedisSettings(url=f"redis://127.0.0.1:{port}"),
        ):
            message = failure(settings)
            assert "refused the password" in message
            assert f"127.0.0.1:{port}" in message
            assert "battery" not in message


async def test_a_user_of_its_own() -> None:
    port = free_port()
    with running(port=str(port)) as process:
        with redis.Redis.from_url(process.url) as admin:
            admin.acl_setuser("palaver", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"])
            admin.acl_setuser("nobody", enabled=True, passwords=["+secret"], commands=["+ping"], keys=["*"])
        await both_work(RedisSettings(url=f"redis://127.0.0.1:{port}", username="palaver", password="secret"))
        weak = RedisSettings(url=f"redis://127.0.0.1:{port}", username="nobody", password="secret")
        assert "lacks rights" in failure(weak, RedisUnsuitableError)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://localhost", "must begin with"),
        ("localhost:6379", "must begin with"),
        ("redis://localhost:port", "port is not a number"),
        ("sentinel://localhost", "must look like"),
        ("sentinel://localhost:26379/main/first", "must be numbers"),
    ],
)
def test_a_mistyped_url_is_told_without_repeating_it(url: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        connect(RedisSettings(url=url), NOWHERE)


# What goes wrong on the way


def test_nobody_listens() -> None:
    assert "cannot be reached at 127.0.0.1" in failure(RedisSettings(url=f"redis://127.0.0.1:{free_port()}"))


def test_a_socket_that_is_not_there() -> None:
    assert "cannot be reached at /tmp/tls-nowhere/s" in failure(RedisSettings(url="unix:///tmp/tls-nowhere/s"))


def test_an_unknown_host() -> None:
    assert "host name of" in failure(RedisSettings(url="redis://:secret@nowhere.invalid:6379", connect_timeout_s=20))


def test_a_server_that_is_no_redis() -> None:
    with one_liner(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert "is not Redis" in failure(RedisSettings(url=f"redis://127.0.0.1:{port}"), RedisUnsuitableError)


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.redis_connection.SOCKET_TIMEOUT_S", 0.3)
    with one_liner(b"") as port:
        assert "does not answer in time" in failure(RedisSettings(url=f"redis://127.0.0.1:{port}"))


async def test_errors_of_the_asyncio_client_are_told_alike() -> None:
    port = free_port()
    async with connect_async(RedisSettings(url=f"redis://:secret@127.0.0.1:{port}"), NOWHERE) as client:
        words = f"cannot be reached at 127.0.0.1:{port}"
        with pytest.raises(RedisUnavailableError, match=words), mapped_errors(client):
            await client.ping()


@contextlib.contextmanager
def one_liner(answer: bytes) -> Iterator[int]:
    """A server that answers whatever it is asked with the same bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connections = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    connections.append(connection)
                    connection.recv(1000)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        for connection in connections:
            connection.close()


# Fitness


def test_an_evicting_server_is_refused(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        message = failure(RedisSettings(url=server.url), RedisUnsuitableError)
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")
    assert "allkeys-lru" in message
    assert "noeviction" in message


def test_a_replica_is_refused(server: ValkeyProcess) -> None:
    with running(replicaof=f"127.0.0.1 {free_port()}") as replica:
        assert "read-only replica" in failure(RedisSettings(url=replica.url), RedisUnsuitableError)


@pytest.mark.parametrize(
    ("info", "good"),
    [
        ({"redis_version": "6.2.14"}, False),
        ({"redis_version": "7.0.0"}, True),
        ({"redis_version": "8.2.1"}, True),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, True),
    ],
)
def test_versions(server: ValkeyProcess, monkeypatch: pytest.MonkeyPatch, info: dict[str, str], good: bool) -> None:
    with connect(RedisSettings(url=server.url), NOWHERE) as client:
        real = {name: value for name, value in client.info("all").items() if not name.endswith("_version")}
        monkeypatch.setattr(client, "info", lambda _: {**real, **info})
        if good:
            check(client)
        else:
            with pytest.raises(RedisUnsuitableError, match=r"version 6\.2\.14; .* 7 or newer"):
                check(client)


def test_a_server_without_persistence_is_warned_of(
    server: ValkeyProcess, restartable_server: ValkeyProcess, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="palaver.redis"):
        with connect(RedisSettings(url=restartable_server.url), NOWHERE) as client:
            check(client)
        assert not caplog.records
        with connect(RedisSettings(url=server.url), NOWHERE) as client:
            check(client)
        assert "no append-only file" in caplog.text


def test_a_full_server_is_told(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    redis_client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(RedisUnavailableError, match="out of memory"), mapped_errors(redis_client):
            redis_client.set("big", b"x" * 2_000_000)
    finally:
        redis_client.config_set("maxmemory", "0")


@pytest.mark.kill
async def test_clients_survive_a_restart_of_the_server(restartable_server: ValkeyProcess) -> None:
    settings = RedisSettings(url=restartable_server.url)
    with connect(settings, NOWHERE) as client:
        async with connect_async(settings, NOWHERE) as other:
            client.set("kept", "yes")
            assert await other.get("kept") == b"yes"
            restartable_server.sync()
            restartable_server.kill9()
            restartable_server.start()
            assert client.get("kept") == b"yes"
            assert await other.get("kept") == b"yes"


# TLS. The embedded server speaks none, so a real TLS listener stands before it, as stunnel would.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ca.pem``, and ``server.pem`` with its key for localhost, signed by it."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl program is needed to make certificates")
    folder = tmp_path_factory.mktemp("tls")
    key = ("-newkey", "rsa:2048", "-nodes")
    openssl(folder, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Test CA")
    openssl(folder, "req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (folder / "ext").write_text("subjectAltName=DNS:localhost\n")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
    openssl(folder, "x509", "-req", "-in", "server.csr", *signing, "-out", "server.pem")
    return folder


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def tls_port(certificates: Path, server: ValkeyProcess) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    loop = asyncio.new_event_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_unix_connection(server.socket)
        await asyncio.gather(pump(reader, behind_writer), pump(behind_reader, writer))

    listening = loop.run_until_complete(asyncio.start_server(serve, "localhost", 0, ssl=context))
    port = listening.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield port
    loop.call_soon_threadsafe(listening.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


async def test_tls_with_an_authority_of_ones_own(certificates: Path, tls_port: int) -> None:
    await both_work(RedisSettings(url=f"rediss://localhost:{tls_port}", ca_file=certificates / "ca.pem"))


def test_an_unknown_authority_is_refused_and_told(tls_port: int) -> None:
    message = failure(RedisSettings(url=f"rediss://localhost:{tls_port}"))
    assert "unknown authority" in message
    assert "CA_FILE" in message


def test_a_certificate_for_another_host_is_refused_and_told(certificates: Path, tls_port: int) -> None:
    settings = RedisSettings(url=f"rediss://127.0.0.1:{tls_port}", ca_file=certificates / "ca.pem")
    assert "certificate is for another host" in failure(settings)


def test_tls_to_a_server_that_speaks_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.redis_connection.SOCKET_TIMEOUT_S", 0.5)
    port = free_port()
    with running(port=str(port)):
        message = failure(RedisSettings(url=f"rediss://127.0.0.1:{port}"))
    assert "TLS" in message


def test_no_tls_to_a_server_that_expects_it_is_told(tls_port: int) -> None:
    assert "rediss://" in failure(RedisSettings(url=f"redis://localhost:{tls_port}"))


def test_a_ca_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(SettingsError, match="no readable PEM certificate"):
            connect(RedisSettings(url="rediss://localhost", ca_file=tmp_path / name), NOWHERE)


# Sentinel


@contextlib.contextmanager
def sentinel_of(primary_port: int, folder: Path) -> Iterator[int]:
    port = free_port()
    conf = folder / "sentinel.conf"
    conf.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nrequirepass watch\n"
        f"sentinel monitor main 127.0.0.1 {primary_port} 1\n"
        'sentinel auth-pass main "secret"\n'
        "sentinel down-after-milliseconds main 500\n"
        "sentinel failover-timeout main 3000\n"
    )
    log = (folder / "sentinel.log").open("wb")
    process = subprocess.Popen([BINARY, conf, "--sentinel"], stdout=log, stderr=log, preexec_fn=die_with_parent)
    try:
        yield port
    finally:
        process.kill()
        process.wait()
        log.close()


def eventually(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(0.1)


def works(settings: RedisSettings) -> bool:
    try:
        with connect(settings, NOWHERE) as client:
            check(client)
            return bool(client.set("probe", "1"))
    except (RedisUnavailableError, RedisUnsuitableError, redis.RedisError):
        return False


@pytest.mark.kill
async def test_sentinel_leads_to_the_primary_and_after_its_death_to_the_next(tmp_path: Path) -> None:
    first_port, second_port = free_port(), free_port()
    login = {"requirepass": "secret", "masterauth": "secret"}
    with running(port=str(first_port), **login) as first:
        follow = {"replicaof": f"127.0.0.1 {first_port}", "repl-diskless-sync-delay": "0", **login}
        with running(port=str(second_port), **follow), sentinel_of(first_port, tmp_path) as sentinel_port:
            hosts = f"127.0.0.1:{free_port()},127.0.0.1:{sentinel_port}"  # one of the sentinels is down
            settings = RedisSettings(
                url=f"sentinel://{hosts}/main/0", password="secret", sentinel_password="watch", connect_timeout_s=1.0
            )
            eventually(lambda: works(settings))
            await both_work(settings)
            with redis.Redis(port=second_port, password="secret") as replica:
                eventually(lambda: replica.info("replication")["master_link_status"] == "up")
                first.kill9()
                eventually(lambda: replica.info("replication")["role"] == "master")
            eventually(lambda: works(settings))
            await both_work(settings)
            for service, watchword in (("other", "watch"), ("main", "wrong")):
                url = f"sentinel://127.0.0.1:{sentinel_port}/{service}"
                unknown = RedisSettings(url=url, password="secret", sentinel_password=watchword)
                assert "know no reachable primary" in failure(unknown)
