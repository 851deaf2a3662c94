"""A small HTTP server in every process: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz`` for its keeper.

It runs in a thread of its own and is off unless a port is set. The first free port from that one on is taken, so that
the processes of one machine do not clash; with port 0 any free one. Each process writes where it listens to
``<data_dir>/metrics/NAME-PID.json``, in the form that Prometheus' ``file_sd_configs`` reads.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from threading import Thread

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from workers.errors import SettingsError
from workers.metrics import REGISTRY
from workers.settings import MetricsSettings

#: Processes of one machine that may share a first port.
PORTS_TRIED = 32

log = logging.getLogger("palaver.metrics")

Ready = Callable[[], bool]


@contextmanager
def serving(settings: MetricsSettings, data_dir: Path, name: str, ready: Ready = lambda: True) -> Iterator[str | None]:
    """Answer for this process while the block runs.

    Args:
        settings: Where to listen, if at all.
        data_dir: Where to say so.
        name: What the process is, such as ``chat-worker``.
        ready: Whether it does its work now; called from another thread.

    Yields:
        The server's URL, or None if it is off.

    Raises:
        SettingsError: None of the ports is free, or the address is not this machine's.
    """
    if settings.port is None:
        yield None
        return
    server = _listen(settings, ready)
    host, port = server.server_address[:2]
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="metrics", daemon=True).start()
    place = _announce(data_dir, name, f"{host!s}:{port}")
    log.info("metrics of %s at http://%s:%s/metrics", name, host, port)
    try:
        yield f"http://{host!s}:{port}"
    finally:
        place.unlink(missing_ok=True)
        server.shutdown()
        server.server_close()


def _listen(settings: MetricsSettings, ready: Ready) -> ThreadingHTTPServer:
    first = settings.port or 0
    reason = "no free port"
    for port in range(first, first + (PORTS_TRIED if first else 1)):
        try:
            return _Server((settings.address, port), _handler(ready))
        except OSError as error:
            reason = error.strerror or reason
    raise SettingsError(
        f"metrics.port: cannot listen at {settings.address}:{first} or the {PORTS_TRIED} above: {reason}."
    )


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True

    def server_bind(self) -> None:
        """Without the library's look-up of this machine's name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


def _announce(data_dir: Path, name: str, target: str) -> Path:
    """Write where this process listens, and remove what dead ones have left."""
    folder = data_dir / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*-*.json"):
        pid = file.stem.rpartition("-")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            file.unlink(missing_ok=True)
    place = folder / f"{name}-{os.getpid()}.json"
    waiting = place.with_suffix(".new")
    waiting.write_text(json.dumps([{"targets": [target], "labels": {"process": name}}]), "utf-8")
    return waiting.replace(place)


def _handler(ready: Ready) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # a client that says nothing must not hold a thread

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/metrics":
                    self._answer(200, generate_latest(REGISTRY), CONTENT_TYPE_PLAIN_0_0_4)
                case "/healthz":
                    self._answer(200, b"ok\n")
                case "/readyz":
                    self._answer(*((200, b"ready\n") if ready() else (503, b"not ready\n")))
                case _:
                    self._answer(404, b"/metrics, /healthz or /readyz\n")

        def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Scrapes are not logged."""

    return Handler
