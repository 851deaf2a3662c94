"""Documents are read in a process of their own, with limits of memory and time: a hostile one harms nothing else.

One process reads one document after the other, and a new one follows when it has died. It gets a line of JSON with name
and size, and the bytes; it answers with a line of JSON.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from typing import Any

from generation.errors import UnreadableDocumentError
from generation.retrieval.chunking import ParsedDocument, Section
from generation.retrieval.formats.reading import MAX_TEXT_CHARS, require_size

#: A document that takes longer is no document.
TIME_LIMIT_S = 60
MEMORY_LIMIT_BYTES = 1536 * 2**20
_MAX_REPLY_BYTES = MAX_TEXT_CHARS * 13 + 2**20  # a character is at most twelve in JSON
_START_S = 30


class ConfinedParser:
    """Reads documents in a child process that starts with the first one.

    Args:
        time_limit_s: Most seconds for one document.
    """

    def __init__(self, time_limit_s: int = TIME_LIMIT_S) -> None:
        self._time_limit_s = time_limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def parse(self, name: str, content: bytes) -> ParsedDocument:
        """Read a document; see `reading.parse`.

        Raises:
            UnreadableDocumentError: It cannot be read within the limits; the message says why in one line.
        """
        require_size(len(content))
        with self._lock:
            process = self._running()
            try:
                reply = self._asked(process, name, content)
            except OSError:  # it died before it had read all
                reply = b""
            if not reply.endswith(b"\n"):
                raise UnreadableDocumentError(self._died(process))
        told = json.loads(reply)
        if "error" in told:
            raise UnreadableDocumentError(str(told["error"]))
        return _document(told)

    def close(self) -> None:
        """End the child."""
        with self._lock:
            if self._process is not None:
                self._end(self._process)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "generation.retrieval.formats.child", str(self._time_limit_s)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            )  # fmt: skip
        return self._process

    def _asked(self, process: subprocess.Popen[bytes], name: str, content: bytes) -> bytes:
        assert process.stdin is not None  # noqa: S101 - both are pipes, see above
        assert process.stdout is not None  # noqa: S101
        header = json.dumps({"name": name, "size": len(content)}).encode() + b"\n"
        for part in (header, content):
            view = memoryview(part)
            while view:
                view = view[process.stdin.write(view) or 0 :]
        deadline = time.monotonic() + self._time_limit_s + _START_S
        reply = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not reply.endswith(b"\n") and len(reply) <= _MAX_REPLY_BYTES:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    break
                part = os.read(process.stdout.fileno(), 2**20)
                if not part:
                    break
                reply += part
        return bytes(reply)

    def _died(self, process: subprocess.Popen[bytes]) -> str:
        """What to say of a child that gave no answer."""
        try:
            code = process.wait(1)
        except subprocess.TimeoutExpired:
            code = 0
        self._end(process)
        if code in (0, -14):  # SIGALRM
            return f"reading it takes longer than {self._time_limit_s} seconds"
        return "it cannot be read: the parser broke on it"

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None


def as_json(parsed: ParsedDocument) -> dict[str, Any]:
    """A document as JSON."""
    return {
        "title": parsed.title,
        "language": parsed.language,
        "sections": [
            [section.heading_path, section.paragraphs, section.anchor, section.page] for section in parsed.sections
        ],
    }


def _document(told: dict[str, Any]) -> ParsedDocument:
    sections = tuple(
        Section(tuple(map(_clean, path)), tuple(map(_clean, paragraphs)), anchor and _clean(anchor), page)
        for path, paragraphs, anchor, page in told["sections"]
    )
    return ParsedDocument(_clean(told["title"]), sections, told["language"])


def _clean(text: str) -> str:
    """Without what no database takes: the character zero, and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")
