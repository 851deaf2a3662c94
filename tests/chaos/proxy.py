"""A TCP proxy in front of the server, in a process of its own: it can be slow, cut connections and swallow bytes.

Orders come by line on standard input: ``slow SECONDS``, ``mute``, ``drop`` and ``well``. It prints its port.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys

from tests.valkey import die_with_parent

_CHUNK_BYTES = 2**16


class Proxy:
    """Carries bytes between TCP and a unix socket.

    Args:
        path: The server's socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._slow_s = 0.0
        self._well = asyncio.Event()
        self._well.set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self) -> None:
        """Until standard input ends."""
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        orders = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        while line := await orders.readline():
            self._obey(*line.decode().split())

    def _obey(self, order: str, value: str = "0") -> None:
        self._slow_s = float(value) if order == "slow" else 0.0
        if order == "mute":
            self._well.clear()
        else:
            self._well.set()
        if order == "drop":
            for writer in list(self._writers):
                writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_server = await asyncio.open_unix_connection(self._path)
        except OSError:
            writer.transport.abort()  # as a machine does on which no server runs
            return
        self._writers |= {writer, to_server[1]}
        ways = (self._carry(reader, to_server[1]), self._carry(to_server[0], writer))
        tasks = [asyncio.create_task(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, to_server[1]):
            self._writers.discard(each)
            each.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._well.wait()
                if self._slow_s:
                    await asyncio.sleep(self._slow_s)
                writer.write(data)
                await writer.drain()


class ProxyProcess:
    """A running proxy.

    Args:
        path: The server's socket.
    """

    def __init__(self, path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.proxy", path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.url = f"redis://127.0.0.1:{int(self._process.stdout.readline())}"

    def order(self, order: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()

    def end(self) -> None:
        self._process.kill()
        self._process.wait(20)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


if __name__ == "__main__":
    asyncio.run(Proxy(sys.argv[1]).serve())
