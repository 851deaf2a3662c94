"""Pages of the web, fetched with limits; addresses of private networks are refused unless the operator names them.

A name is resolved once, every address that it has is checked, and the connection goes to a checked one: a name that
means another address a moment later leads nowhere.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import quote, unquote, urljoin, urlsplit

import httpcore

from generation.errors import InvalidRequestError, UnreadableDocumentError
from generation.retrieval.formats.reading import ENDINGS, MAX_DOCUMENT_BYTES

USER_AGENT = "palaver-knowledge"
MAX_REDIRECTS = 5
CONNECT_TIMEOUT_S = 10.0
#: Of one page, from the first byte sent to the last received.
PAGE_TIMEOUT_S = 60.0
#: 6to4, Teredo and NAT64: within such an address may lie one of a private network.
_TUNNELS = tuple(ipaddress.ip_network(each) for each in ("2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48"))
_ENDINGS = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "text/csv": ".csv",
    "application/pdf": ".pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
}


@dataclass(frozen=True, slots=True)
class Page:
    """What was found at an address.

    Args:
        url: Where it was in the end, without fragment.
        state: ``there``; ``unchanged`` since it was last fetched; ``gone``; or ``other``, which is no document.
        name: A file name for it, whose ending tells the format.
        content: The bytes.
        etag: What to ask with the next time.
        modified: Likewise.
    """

    url: str
    state: Literal["there", "unchanged", "gone", "other"]
    name: str = ""
    content: bytes = b""
    etag: str | None = None
    modified: str | None = None


class Fetcher:
    """Fetches pages, one at a time.

    Args:
        networks: Networks that may be reached though they are private, such as ``10.1.0.0/16``.

    Raises:
        InvalidRequestError: One of them is no network.
    """

    def __init__(self, networks: Sequence[str] = ()) -> None:
        try:
            allowed = [ipaddress.ip_network(network) for network in networks]
        except ValueError as error:
            raise InvalidRequestError(f"knowledge.networks has what is no network: {error}.") from error
        self._pool = httpcore.ConnectionPool(network_backend=_CheckedBackend(allowed), retries=1)

    def get(
        self,
        url: str,
        etag: str | None = None,
        modified: str | None = None,
        within: str = "",
        *,
        accept_other: bool = False,
    ) -> Page:
        """Fetch a page.

        Args:
            url: With http or https.
            etag: What it said of itself when it was last fetched.
            modified: Likewise.
            within: What the addresses of redirects must begin with; one that leads elsewhere is ``other``.
            accept_other: Also read what is no document, such as a sitemap.

        Raises:
            UnreadableDocumentError: It cannot be fetched; the message says why in one line.
        """
        deadline = time.monotonic() + PAGE_TIMEOUT_S
        for _ in range(MAX_REDIRECTS + 1):
            page, onward = self._get_once(url, etag, modified, deadline, accept_other)
            if page is not None:
                return page
            url = urljoin(url, onward).partition("#")[0]
            if not url.startswith(within):
                return Page(url, "other")
        raise UnreadableDocumentError(f"{url} redirects more than {MAX_REDIRECTS} times.")

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _get_once(
        self, url: str, etag: str | None, modified: str | None, deadline: float, accept_other: bool
    ) -> tuple[Page | None, str]:
        """A page, or where it redirects to."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UnreadableDocumentError(f"{url} is no address with http or https.")
        # Unpacked as it comes: a compressed page could be of any size.
        headers: dict[bytes | str, bytes | str] = {
            "User-Agent": USER_AGENT,
            "Host": parts.netloc.rpartition("@")[2],
            "Accept-Encoding": "identity",
        }
        headers |= {"If-None-Match": etag} if etag else {}
        headers |= {"If-Modified-Since": modified} if modified else {}
        timeouts = {"connect": CONNECT_TIMEOUT_S, "read": CONNECT_TIMEOUT_S, "write": CONNECT_TIMEOUT_S, "pool": 1.0}
        try:
            with self._pool.stream("GET", _ascii(url), headers=headers, extensions={"timeout": timeouts}) as response:
                told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
                if response.status in (301, 302, 303, 307, 308) and "location" in told:
                    return None, told["location"].encode("latin-1").decode("utf-8", "replace")
                return _page(url, response, told, deadline, accept_other), ""
        except _RefusedAddressError as error:
            raise UnreadableDocumentError(str(error)) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ssl.SSLError) as error:
            raise UnreadableDocumentError(f"{url} cannot be reached: {_reason(error)}.") from error


def _page(url: str, response: httpcore.Response, told: dict[str, str], deadline: float, accept_other: bool) -> Page:
    if response.status == 304:
        return Page(url, "unchanged")
    if response.status in (404, 410):
        return Page(url, "gone")
    if response.status != 200:
        raise UnreadableDocumentError(f"{url} answers with status {response.status}.")
    kind, _, parameters = told.get("content-type", "").partition(";")
    path = PurePosixPath(unquote(urlsplit(url).path))
    ending = _ENDINGS.get(kind.strip().lower(), "")
    # A server that knows no Markdown calls it text, or bytes.
    if path.suffix.lower() in ENDINGS and ending in ("", ".txt"):
        ending = path.suffix.lower()
    if not (ending or accept_other) or told.get("content-encoding", "identity") != "identity":
        return Page(url, "other")
    content = bytearray()
    for part in response.iter_stream():
        content += part
        if len(content) > MAX_DOCUMENT_BYTES:
            raise UnreadableDocumentError(f"{url} has more than {MAX_DOCUMENT_BYTES // 2**20} MiB.")
        if time.monotonic() > deadline:
            raise UnreadableDocumentError(f"{url} takes longer than {PAGE_TIMEOUT_S:.0f} seconds.")
    held = _in_utf8(bytes(content), parameters) if ending in (".html", ".txt", ".md", ".csv") else bytes(content)
    return Page(url, "there", f"{path.stem or 'index'}{ending}", held, told.get("etag"), told.get("last-modified"))


def _in_utf8(content: bytes, parameters: str) -> bytes:
    """Text in the encoding that its header names, as UTF-8 that says so."""
    _, _, charset = parameters.partition("charset=")
    charset = charset.strip().strip("\"'").lower()
    if not charset or charset in ("utf-8", "utf8"):
        return content
    try:
        return content.decode(charset).encode("utf-8-sig")
    except (LookupError, UnicodeDecodeError):
        return content


def _ascii(url: str) -> bytes:
    """An address as it is sent: its host in IDNA, other characters in percents."""
    parts = urlsplit(url)
    try:
        host = (parts.hostname or "").encode("idna").decode("ascii")
        port = f":{parts.port}" if parts.port else ""
    except (UnicodeError, ValueError) as error:
        raise UnreadableDocumentError(f"{url} is no address.") from error
    host = f"[{host}]" if ":" in host else host
    query = f"?{quote(parts.query, safe='/?:@!$&()*+,;=%-._~')}" if parts.query else ""
    return f"{parts.scheme}://{host}{port}{quote(parts.path or '/', safe='/:@!$&()*+,;=%-._~')}{query}".encode("ascii")


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__


class _RefusedAddressError(Exception):
    """A name means an address that must not be reached."""


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to checked addresses only."""

    def __init__(self, allowed: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> None:
        self._allowed = allowed
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to a name's first address if all that it has may be reached."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"the name {host} is not known") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if any(not self._may_be_reached(address) for address in addresses):
            raise _RefusedAddressError(
                f"{host} is in a private network; the operator can allow it with knowledge.networks."
            )
        return self._inner.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    def _may_be_reached(self, address: str) -> bool:
        parsed = ipaddress.ip_address(address.partition("%")[0])
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        if any(parsed in network for network in self._allowed if network.version == parsed.version):
            return True
        if any(parsed in network for network in _TUNNELS if network.version == parsed.version):
            return False
        return parsed.is_global and not parsed.is_multicast
