"""A two-way stream of messages between a worker and its engine process that never blocks either of them.

Both sides keep what they could not write yet and go on reading, so no size of prompt or answer, and no pause of
the other side, can leave the two waiting for each other. Messages are JSON: whatever runs in the engine process,
a model's own code included, cannot make the worker execute anything.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from typing import Any

_HEADER = struct.Struct("!I")
_READ_BYTES = 262_144

Message = list[Any]


class Channel:
    """One end of the stream.

    Args:
        connection: A connected stream socket; the channel owns it.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self.closed = False

    def fileno(self) -> int:
        """The file descriptor to wait on for messages."""
        return self._socket.fileno()

    @property
    def unsent_bytes(self) -> int:
        """What the other side has not taken yet; wait for writability and ``flush`` while this is positive."""
        return len(self._outgoing)

    def send(self, *messages: Message) -> None:
        """Queue messages and write as much as the other side takes now."""
        for message in messages:
            body = json.dumps(message, separators=(",", ":")).encode()
            self._outgoing += _HEADER.pack(len(body)) + body
        self.flush()

    def flush(self) -> None:
        """Write as much as the other side takes now; a closed other side sets ``closed``."""
        while self._outgoing and not self.closed:
            try:
                written = self._socket.send(self._outgoing)
            except BlockingIOError:
                return
            except OSError:
                self.closed = True
                return
            del self._outgoing[:written]

    def receive(self) -> list[Message]:
        """Every complete message that has arrived, without waiting; the end of the stream sets ``closed``."""
        while not self.closed:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self.closed = not data
            self._incoming += data
            if len(data) < _READ_BYTES:
                break
        return self._complete_messages()

    def wait(self, timeout_s: float | None) -> None:
        """Wait until there is something to read, or room for what is unsent; None waits without limit."""
        if self.closed:
            return
        writing = [self._socket] if self._outgoing else []
        select.select([self._socket], writing, [], timeout_s)

    def close(self) -> None:
        """Close this end; idempotent."""
        self.closed = True
        self._socket.close()

    def _complete_messages(self) -> list[Message]:
        messages: list[Message] = []
        start = 0
        while len(self._incoming) - start >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._incoming, start)
            end = start + _HEADER.size + length
            if len(self._incoming) < end:
                break
            messages.append(json.loads(self._incoming[start + _HEADER.size : end]))
            start = end
        del self._incoming[:start]
        return messages
