"""A small S3: objects of one bucket over real HTTP, every request's signature checked as the protocol demands."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote, urlsplit
from xml.sax.saxutils import escape

KEY_ID, SECRET, BUCKET, REGION = "AKIATEST", "sesame/secret", "pictures", "eu-test-1"


class Objects:
    """What lies in the bucket.

    Attributes:
        data: Bytes by key, with their media type.
        written: When each was written.
        failing: Whether every request is answered with 503.
    """

    def __init__(self) -> None:
        self.data: dict[str, tuple[bytes, str]] = {}
        self.written: dict[str, datetime] = {}
        self.failing = False
        self.url = ""


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: Objects

    def _signed(self, body: bytes) -> bool:
        """AWS Signature Version 4, https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html"""
        scheme, _, rest = self.headers.get("Authorization", "").partition(" ")
        if scheme != "AWS4-HMAC-SHA256":
            return False
        parts = dict(part.strip().split("=", 1) for part in rest.split(","))
        key_id, *scope = parts["Credential"].split("/")
        hashed = self.headers["x-amz-content-sha256"]
        if hashed != "UNSIGNED-PAYLOAD" and hashed != hashlib.sha256(body).hexdigest():
            return False
        url = urlsplit(self.path)
        query = "&".join(
            f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
            for name, value in sorted(parse_qsl(url.query, keep_blank_values=True))
        )
        names = parts["SignedHeaders"].split(";")
        headers = "".join(f"{name}:{' '.join(self.headers[name].split())}\n" for name in names)
        canonical = "\n".join([self.command, url.path, query, headers, parts["SignedHeaders"], hashed])
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = f"AWS4{SECRET}".encode()
        for part in scope:
            key = _hmac(key, part)
        signed = "\n".join(["AWS4-HMAC-SHA256", self.headers["x-amz-date"], "/".join(scope), digest])
        right = _hmac(key, signed).hex()
        return key_id == KEY_ID and scope[1] == REGION and hmac.compare_digest(right, parts["Signature"])

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.objects.failing:
            self._answer(503)
        elif not self._signed(body):
            self._answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
        else:
            bucket, _, key = urlsplit(self.path).path.lstrip("/").partition("/")
            if bucket != BUCKET:
                self._answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
            else:
                getattr(self, f"_{self.command.lower()}")(key, body)

    do_GET = do_PUT = do_DELETE = do_POST = do_HEAD = _serve  # noqa: N815 - the library's names

    def _put(self, key: str, body: bytes) -> None:
        self.objects.data[key] = (body, self.headers.get("Content-Type", ""))
        self.objects.written[key] = datetime.now(UTC)
        self._answer(200, ETag='"1"')

    def _get(self, key: str, body: bytes) -> None:
        if not key:
            self._answer(200, self._listing(), Content_Type="application/xml")
        elif key in self.objects.data:
            data, media_type = self.objects.data[key]
            modified = self.objects.written[key].strftime("%a, %d %b %Y %H:%M:%S GMT")
            self._answer(200, data, Content_Type=media_type, ETag='"1"', Last_Modified=modified)
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def _delete(self, key: str, body: bytes) -> None:
        self.objects.data.pop(key, None)
        self._answer(204)

    def _post(self, key: str, body: bytes) -> None:
        """Delete many at once: what stands between <Key> and </Key>."""
        deleted = [part.partition("</Key>")[0] for part in body.decode().split("<Key>")[1:]]
        for each in deleted:
            self.objects.data.pop(each, None)
        entries = "".join(f"<Deleted><Key>{each}</Key></Deleted>" for each in deleted)
        self._answer(200, f"<DeleteResult>{entries}</DeleteResult>".encode(), Content_Type="application/xml")

    def _listing(self) -> bytes:
        prefix = dict(parse_qsl(urlsplit(self.path).query)).get("prefix", "")
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{self.objects.written[key]:%Y-%m-%dT%H:%M:%S.000Z}"
            f"</LastModified><ETag>1</ETag><Size>{len(data)}</Size></Contents>"
            for key, (data, _) in sorted(self.objects.data.items())
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@contextmanager
def s3_server() -> Iterator[Objects]:
    objects = Objects()
    handler = type("Handler", (_Handler,), {"objects": objects})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        objects.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield objects
        finally:
            server.shutdown()
            thread.join()
