"""What must run before anything can be asked: a server and a worker, joined if they are there, started if not."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import redis

from bots import up_wants
from bots.overview import workers_of
from bots.settings import Settings
from bots.terminal.notice import Notice
from bots.up_lock import AlreadyRunningError, in_use, running_pid, set_keep, wait_until_ended
from workers import embedded_redis, redis_connection
from workers.contract import Kind
from workers.errors import EngineStartError

_POLL_S = 0.2
_STOP_DEADLINE_S = 20.0
_LOG_LIMIT_BYTES = 2**20
#: A first start downloads and converts a model; a worker that says nothing for so long is not coming.
_SILENCE_LIMIT_S = 300.0


@contextlib.contextmanager
def running_stack(settings: Settings, keep: bool, kinds: Sequence[Kind] = ("chat",)) -> Iterator[None]:
    """While this lasts, a server answers and a worker takes jobs; what was started for it ends with its last user.

    Args:
        settings: Where, and which model.
        keep: Whether what is started stays when nobody uses it any more.
        kinds: Of which kinds there must be a worker.

    Raises:
        RedisError: There is no server to be had.
        EngineStartError: The worker could not start; the message is its own.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(wait_until_ended, settings.data_dir, _STOP_DEADLINE_S)
        stack.enter_context(in_use(settings.data_dir))
        if settings.redis.url is None:
            stack.enter_context(embedded_redis.ensure(settings.data_dir, settings.redis))
        client = stack.enter_context(redis_connection.connect(settings.redis, settings.data_dir))
        redis_connection.check(client)
        if keep or running_pid(settings.data_dir) is None:
            set_keep(settings.data_dir, keep)
        with redis_connection.mapped_errors(client):
            missing = [kind for kind in kinds if not _ready(client, kind)]
            if missing:
                _start_workers(settings.data_dir, client, missing)
        yield


def _ready(client: redis.Redis, kind: Kind) -> bool:
    return any(worker.ready for worker in workers_of(client, kind))


def _start_workers(data_dir: Path, client: redis.Redis, kinds: Sequence[Kind]) -> None:
    """Have a process tree run workers, starting one if need be, and wait until all of them take jobs."""
    with Notice() as notice:
        for kind in kinds:
            up_wants.want(data_dir, kind)
        started = None
        if not running_pid(data_dir) and not all(workers_of(client, kind) for kind in kinds):
            notice.say("starting a worker")
            started = _Started(data_dir / "up.log")
        heard_s, last = time.monotonic(), ""
        while waiting := [kind for kind in kinds if not _ready(client, kind)]:
            for kind in waiting:
                if error := up_wants.failure(data_dir, kind):
                    raise error
            if started and started.failed():
                raise started.error()
            states = [worker.state for kind in waiting for worker in workers_of(client, kind)]
            news = "; ".join(states) or "waiting for the worker"
            if news != last:
                heard_s, last = time.monotonic(), news
                notice.say(news)
            if time.monotonic() - heard_s > _SILENCE_LIMIT_S:
                raise EngineStartError(f"The worker says nothing for {_SILENCE_LIMIT_S:.0f} s. See {data_dir}/up.log.")
            time.sleep(_POLL_S)
        notice.say("ready")


class _Started:
    """A ``palaver up`` of its own: it outlives this command if others use it by then.

    Args:
        log: Where its words go.
    """

    def __init__(self, log: Path) -> None:
        if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
            log.unlink()
        self._log = log
        with log.open("ab") as output:
            self._begin_bytes = output.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bots.cli", "up", "--while-used"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def failed(self) -> bool:
        """Whether it has ended, and not because another command was faster: then that one's tree is ours as well."""
        return self._process.poll() not in (None, AlreadyRunningError.exit_code)

    def error(self) -> EngineStartError:
        """Why it ended, in its own words and with its own exit code."""
        with self._log.open("rb") as file:
            file.seek(self._begin_bytes)
            lines = file.read().decode(errors="replace").splitlines()
        said = [line.removeprefix("palaver: ") for line in lines if line.startswith("palaver: ")]
        error = EngineStartError(said[-1] if said else f"The worker ended without a word. See {self._log}.")
        error.exit_code = self._process.returncode or error.exit_code
        return error
