"""From settings to clients of Redis or Valkey, and whether that server is fit to hold jobs.

Every client made here returns bytes, as rq needs it. Commands are retried after a lost connection, which repeats a
command whose reply was lost: all scripts and writes of this package are idempotent for that reason, and rq's enqueue
is made so by ``unique=True``.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.sentinel
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry

from workers import embedded_redis
from workers.errors import RedisError, RedisUnavailableError, RedisUnsuitableError, SettingsError
from workers.settings import RedisSettings

MINIMUM_MAJOR_VERSION = 7
#: Longer than any blocking command: rq adds nothing of its own to it, and ours block for 5 s at most.
SOCKET_TIMEOUT_S = 15.0
_HEALTH_CHECK_S = 30
#: Of one front-end; whoever comes later waits for one to be free instead of failing.
_ASYNC_CONNECTIONS = 64
_RETRIES = 2
_BACKOFF = ExponentialWithJitterBackoff(cap=1.0, base=0.05)
#: Not after a timeout: a server that is stuck is not helped by more of the same, and the caller has waited enough.
_RETRIED = (redis.ConnectionError,)
_SCHEMES = ("redis", "rediss", "unix", "sentinel")
_SENTINEL_PORT = 26379

#: What passes when somebody sees to the server: it is away, a replica just now, its memory or its disk is full.
_PASSING = (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError, redis.OutOfMemoryError)
#: The same as a server says it where the client has no class for it, or in the middle of a script or a MULTI.
_PASSING_SIGNS = ("MISCONF", "OOM ", "READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS")

_logger = logging.getLogger("palaver.redis")


def connect(settings: RedisSettings, data_dir: Path) -> redis.Redis:
    """A client for synchronous use, rq's included. Nothing is sent yet: see ``check``.

    Args:
        settings: Which server; without a URL the embedded one that runs for ``data_dir``.
        data_dir: The product's data directory.

    Raises:
        SettingsError: The URL cannot be understood or the CA file cannot be read.
        RedisUnavailableError: No URL is set and no embedded server runs.
    """
    options = _options(settings)
    options["retry"] = Retry(_BACKOFF, _RETRIES, _RETRIED)
    url = _url(settings, data_dir)
    if not url.startswith("sentinel:"):
        return redis.Redis.from_url(url, **options, **_tls(url, settings))
    sentinels, service, database, login = _sentinel_parts(url)
    manager = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]  # redis-py's is untyped
        sentinels, sentinel_kwargs=_sentinel_options(settings, Retry(NoBackoff(), 0)), **{**login, **options}
    )
    client: redis.Redis = manager.master_for(service, db=database)  # type: ignore[no-untyped-call]  # as above
    return client


def connect_async(settings: RedisSettings, data_dir: Path) -> redis.asyncio.Redis:
    """A client for asyncio. Arguments and errors are those of ``connect``."""
    options = _options(settings)
    options["retry"] = redis.asyncio.retry.Retry(_BACKOFF, _RETRIES, _RETRIED)
    url = _url(settings, data_dir)
    if not url.startswith("sentinel:"):
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url, max_connections=_ASYNC_CONNECTIONS, timeout=SOCKET_TIMEOUT_S, **options, **_tls(url, settings)
        )
        return redis.asyncio.Redis.from_pool(pool)
    sentinels, service, database, login = _sentinel_parts(url)
    manager = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]  # redis-py's is untyped
        sentinels,
        sentinel_kwargs=_sentinel_options(settings, redis.asyncio.retry.Retry(NoBackoff(), 0)),
        **{**login, **options},
    )
    client: redis.asyncio.Redis = manager.master_for(service, db=database)
    return client


def check(client: redis.Redis) -> None:
    """Make sure that jobs are safe with this server; warns when it keeps nothing on disk.

    Raises:
        RedisUnavailableError: It cannot be reached, or does not let us in.
        RedisUnsuitableError: It is too old, evicts keys, or is a read-only replica.
    """
    with mapped_errors(client):
        info: dict[str, Any] = client.info("all")
    version = str(info.get("valkey_version") or info.get("redis_version") or "0")
    if int(version.split(".")[0]) < MINIMUM_MAJOR_VERSION:
        raise RedisUnsuitableError(
            f"The server at {_place(client)} is version {version}; Redis or Valkey {MINIMUM_MAJOR_VERSION} or newer "
            "is needed. Upgrade it, or unset REDIS_URL to use the embedded server."
        )
    if info.get("role") in ("slave", "replica"):
        raise RedisUnsuitableError(
            f"The server at {_place(client)} is a read-only replica. Use its primary's address, or a sentinel:// URL."
        )
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        raise RedisUnsuitableError(
            f"The server at {_place(client)} may evict keys (maxmemory-policy {policy}), which loses jobs. "
            "Set it to noeviction: CONFIG SET maxmemory-policy noeviction."
        )
    if not int(info.get("aof_enabled", 0)):
        _logger.warning(
            "The server at %s keeps no append-only file: jobs are lost when it restarts. Set appendonly yes.",
            _place(client),
        )


@contextmanager
def mapped_errors(client: redis.Redis | redis.asyncio.Redis) -> Iterator[None]:
    """Turn the client library's errors into ours: one line that says what to do, without credentials.

    Raises:
        RedisUnavailableError: The server cannot be reached, does not let us in, or stopped answering.
        RedisUnsuitableError: It answers, but is no server we can work with.
    """
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise describe_outage(error, client) from None


def describe_outage(error: BaseException, client: redis.Redis | redis.asyncio.Redis) -> RedisError:
    """What went wrong with a client's server and what to do about it, without credentials."""
    return _describe(error, _place(client))


def will_pass(error: redis.RedisError) -> bool:
    """Whether a server cannot be worked with just now, so that the same may succeed later."""
    if isinstance(error, _PASSING):
        return True
    return isinstance(error, redis.ResponseError) and any(sign in str(error) for sign in _PASSING_SIGNS)


def _describe(error: BaseException, place: str) -> RedisError:
    lowered = str(error).lower()
    if isinstance(error, redis.AuthenticationError) or "noauth" in lowered or "wrongpass" in lowered:
        return RedisUnavailableError(
            f"The server at {place} refused the password. Check PALAVER_REDIS__USERNAME and PALAVER_REDIS__PASSWORD."
        )
    if isinstance(error, redis.exceptions.NoPermissionError):
        return RedisUnsuitableError(f"The user lacks rights on the server at {place}: grant it +@all on its keys.")
    if isinstance(error, redis.exceptions.ReadOnlyError):
        return RedisUnsuitableError(f"The server at {place} is a read-only replica. Use its primary's address.")
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return RedisUnavailableError(f"The server at {place} is out of memory. Raise maxmemory or give it more.")
    if "misconf" in lowered:
        return RedisUnavailableError(f"The server at {place} cannot write to its disk. Free space there.")
    if isinstance(error, redis.exceptions.BusyLoadingError):
        return RedisUnavailableError(f"The server at {place} is still loading its data. Try again in a moment.")
    if isinstance(error, redis.sentinel.MasterNotFoundError):
        return RedisUnavailableError(
            f"The sentinels know no reachable primary: {place}. Check the service's name, and "
            "PALAVER_REDIS__SENTINEL_PASSWORD if they want one."
        )
    return _describe_connection(lowered, isinstance(error, redis.TimeoutError | TimeoutError), place)


def _describe_connection(lowered: str, timed_out: bool, place: str) -> RedisError:
    refused = "refused" in lowered or "no such file" in lowered  # asked first: host names may contain anything
    if not refused and ("certificate" in lowered or "ssl" in lowered or "tls" in lowered):
        return RedisUnavailableError(
            f"The TLS connection to {place} failed{_tls_reason(lowered)}. Check rediss:// against the server's port, "
            "and PALAVER_REDIS__CA_FILE for a private authority."
        )
    if "name or service not known" in lowered or "getaddrinfo" in lowered or "name resolution" in lowered:
        return RedisUnavailableError(f"The host name of {place} is unknown. Check REDIS_URL.")
    if timed_out or "timeout" in lowered or "timed out" in lowered:
        return RedisUnavailableError(
            f"The server at {place} does not answer in time. Check the network, its load, and whether it expects TLS "
            "(rediss://) or not (redis://)."
        )
    if "protocol error" in lowered or "invalid response" in lowered:
        return RedisUnsuitableError(f"What answers at {place} is not Redis. Check the port in REDIS_URL.")
    if "connection closed" in lowered or "reset by peer" in lowered:
        return RedisUnavailableError(
            f"The server at {place} closed the connection. If it expects TLS, use rediss:// in REDIS_URL."
        )
    return RedisUnavailableError(
        f"Redis cannot be reached at {place}. Start it, correct REDIS_URL, or unset that for the embedded one."
    )


def _tls_reason(lowered: str) -> str:
    for sign, reason in (
        ("self-signed", ": the certificate is signed by an unknown authority"),
        ("unable to get local issuer", ": the certificate is signed by an unknown authority"),
        ("expired", ": the certificate has expired"),
        ("hostname mismatch", ": the certificate is for another host"),
        ("ip address mismatch", ": the certificate is for another host"),
        ("wrong version number", ": the server does not speak TLS on this port"),
    ):
        if sign in lowered:
            return reason
    return ""


def _url(settings: RedisSettings, data_dir: Path) -> str:
    if settings.url is None:
        return embedded_redis.running_url(data_dir)
    url = settings.url.get_secret_value()
    try:
        parts = urlsplit(url)
        _ = parts.port if parts.scheme in ("redis", "rediss") else None
    except ValueError:
        raise SettingsError("REDIS_URL cannot be read: the port is not a number.") from None
    if parts.scheme not in _SCHEMES:
        raise SettingsError(f"REDIS_URL must begin with one of {', '.join(s + '://' for s in _SCHEMES)}.")
    if settings.password is None:
        return url
    # redis-py lets the URL's password win; the separate setting is the one that a secret store fills.
    username, _, host = parts.netloc.rpartition("@")
    username = username.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{username}@{host}" if username else host))


def _options(settings: RedisSettings) -> dict[str, Any]:
    """What every connection gets, whatever its scheme."""
    options: dict[str, Any] = {
        "decode_responses": False,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": settings.connect_timeout_s,
        "health_check_interval": _HEALTH_CHECK_S,
    }
    if settings.username:
        options["username"] = settings.username
    if settings.password:
        options["password"] = settings.password.get_secret_value()
    return options


def _tls(url: str, settings: RedisSettings) -> dict[str, Any]:
    if not url.startswith("rediss:"):
        return {}
    options: dict[str, Any] = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    if settings.ca_file is not None:
        try:
            ssl.create_default_context(cafile=str(settings.ca_file))
        except (OSError, ssl.SSLError):
            raise SettingsError(f"PALAVER_REDIS__CA_FILE is no readable PEM certificate: {settings.ca_file}") from None
        options["ssl_ca_certs"] = str(settings.ca_file)
    return options


def _sentinel_options(settings: RedisSettings, retry: object) -> dict[str, Any]:
    """Sentinels are asked briefly and once, for there are others to ask."""
    timeout_s = settings.connect_timeout_s
    options: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "retry": retry}
    if settings.sentinel_password:
        options["password"] = settings.sentinel_password.get_secret_value()
    return options


def _sentinel_parts(url: str) -> tuple[list[tuple[str, int]], str, int, dict[str, str]]:
    """Take ``sentinel://[user:password@]host:port,host:port/service/db`` apart."""
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    sentinels = []
    try:
        for host in filter(None, hosts.split(",")):
            name, _, port = host.rpartition(":") if ":" in host else (host, "", "")
            sentinels.append((name, int(port or _SENTINEL_PORT)))
        service, _, database = parts.path.strip("/").partition("/")
        number = int(database or parse_qs(parts.query).get("db", ["0"])[0])
    except ValueError:
        raise SettingsError("REDIS_URL: ports and database numbers must be numbers.") from None
    if not sentinels or not service:
        raise SettingsError("REDIS_URL must look like sentinel://host1:26379,host2:26379/service/0.")
    username, _, password = credentials.partition(":")
    login = {"username": unquote(username), "password": unquote(password)}
    return sentinels, service, number, {name: value for name, value in login.items() if value}


def _place(client: redis.Redis | redis.asyncio.Redis) -> str:
    """The server's address for messages: no user, no password."""
    pool = client.connection_pool
    if isinstance(pool, redis.sentinel.SentinelConnectionPool | redis.asyncio.sentinel.SentinelConnectionPool):
        return f"sentinel service {pool.service_name}"
    arguments = pool.connection_kwargs
    if "path" in arguments:
        return str(arguments["path"])
    return f"{arguments.get('host', 'localhost')}:{arguments.get('port', 6379)}"
