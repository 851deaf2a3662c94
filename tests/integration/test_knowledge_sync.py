"""Folders and sites kept in step: real files, a real HTTP server, and addresses that must not be reached."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from generation.errors import InvalidRequestError, UnreadableDocumentError
from generation.retrieval.fetching import Fetcher
from generation.retrieval.knowledge import Knowledge, TenantKnowledge
from generation.retrieval.syncing import sync


class Letters:
    """An embedder that counts letters."""

    name = "letters"
    dimensions = 26

    def encode(self, texts):
        counts = np.array([[text.lower().count(chr(97 + n)) + 0.01 for n in range(26)] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@dataclass
class Site:
    """What a server shows: path -> page, or a path that it redirects to; and what it was asked."""

    pages: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site() -> Iterator[Site]:
    shown = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            page = shown.pages.get(self.path)
            etag = f'"{hash(page)}"'
            status = 404 if page is None else 302 if page.startswith("->") else 200
            if self.headers["If-None-Match"] == etag:
                status = 304
            body = (page or "").encode() if status == 200 else b""
            shown.asked.append((self.path, status))
            self.send_response(status)
            if status == 302 and page:
                self.send_header("Location", page.removeprefix("->"))
            kind = "text/plain" if self.path == "/robots.txt" else "text/html; charset=utf-8"
            for name, value in (("Content-Type", kind), ("ETag", etag), ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    shown.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield shown
    server.shutdown()
    server.server_close()


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[TenantKnowledge]:
    knowledge = Knowledge(f"sqlite:///{tmp_path / 'k.sqlite'}", Letters())
    yield knowledge.tenant("shop")
    knowledge.close()


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    found = Fetcher(["127.0.0.0/8"])
    yield found
    found.close()


def page(text: str, *links: str) -> str:
    return f"<title>{text}</title><p>{text}</p>" + "".join(f'<a class=x href="{link}">next</a>' for link in links)


def texts(tenant: TenantKnowledge) -> set[str]:
    return {document.title for document in tenant.list()}


def test_a_folder_is_kept_in_step(tenant: TenantKnowledge, fetcher: Fetcher, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.md", "deep/b.md", "c.md"):
        (folder / name).write_text(f"# {name}\n\nText of {name}.")
    (folder / "bad.pdf").write_text("%PDF-1.4 broken")
    told: list[tuple[str, str]] = []
    first = sync(tenant, str(folder), fetcher, dry_run=True, progress=lambda *each: told.append(each))
    assert (first.added, len(told), tenant.list()) == (4, 4, [])  # what cannot be read is found out by reading it
    assert sync(tenant, str(folder), fetcher, tags=("help",)).added == 3
    (folder / "a.md").write_text("# a.md\n\nOther text.")
    (folder / "deep/b.md").unlink()
    report = sync(tenant, str(folder), fetcher)
    assert (report.added, report.changed, report.removed, report.unchanged) == (0, 1, 1, 1)
    assert [reason for _, reason in report.failed] == ["bad.pdf: it is a broken PDF."]
    assert texts(tenant) == {"a.md", "c.md"}
    assert {document.tags for document in tenant.list()} == {("help",)}
    with pytest.raises(UnreadableDocumentError, match="no folder"):  # a disk that is not mounted empties nothing
        sync(tenant, str(tmp_path / "gone"), fetcher)


def test_a_site_is_kept_in_step(tenant: TenantKnowledge, fetcher: Fetcher, site: Site) -> None:
    site.pages = {
        "/robots.txt": f"User-agent: *\nDisallow: /help/private\nSitemap: {site.url}/map.xml",
        "/map.xml": f"<urlset><url><loc>{site.url}/help/listed</loc></url></urlset>",
        "/help/": page("Start", "two#part", "/elsewhere", "private", "away", "mailto:x@y.example", "http://["),
        "/help/two": page("Two", "/help/"),
        "/help/listed": page("Listed"),
        "/help/private": page("Private"),
        "/help/away": "->/elsewhere",
        "/elsewhere": page("Elsewhere"),
    }
    start = f"{site.url}/help/"
    assert sync(tenant, start, fetcher).added == 3
    assert texts(tenant) == {"Start", "Two", "Listed"}
    assert {document.address for document in tenant.list()} == {start, f"{start}two", f"{start}listed"}
    assert not {path for path, _ in site.asked} & {"/elsewhere", "/help/private"}

    site.asked.clear()
    del site.pages["/help/listed"]
    site.pages["/map.xml"] = "<urlset/>"
    site.pages["/help/two"] = page("Two anew", "three")
    site.pages["/help/three"] = page("Three")
    report = sync(tenant, start, fetcher)
    assert (report.added, report.changed, report.removed, report.unchanged) == (1, 1, 1, 1)
    assert texts(tenant) == {"Start", "Two anew", "Three"}
    assert ("/help/", 304) in site.asked  # what has not changed is not sent again


def test_a_site_that_is_away_loses_nothing(tenant: TenantKnowledge, fetcher: Fetcher, site: Site) -> None:
    site.pages = {"/": page("Start")}
    sync(tenant, f"{site.url}/", fetcher)
    with pytest.raises(UnreadableDocumentError, match="cannot be reached"):
        sync(tenant, "http://127.0.0.1:9/", fetcher)
    assert texts(tenant) == {"Start"}


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://localhost/", "http://2130706433/", "http://0x7f.1/", "http://[::1]/",
        "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/", "http://0.0.0.0/", "http://user@127.0.0.1/", "http://224.0.0.1/",
    ],
)  # fmt: skip
def test_private_addresses_are_refused(url: str) -> None:
    with pytest.raises(UnreadableDocumentError, match=r"private network|cannot be reached"):
        Fetcher().get(url)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/", "http://", "http://a\ud800/"])
def test_other_addresses_are_none(url: str) -> None:
    with pytest.raises(UnreadableDocumentError, match="no address"):
        Fetcher().get(url)


def test_a_redirect_into_a_private_network_is_refused(site: Site) -> None:
    # The first address is allowed, the second is not.
    site.pages = {"/": "->http://127.0.0.2:1/", "/loop": "->/loop"}
    fetcher = Fetcher(["127.0.0.1/32"])
    with pytest.raises(UnreadableDocumentError, match="private network"):
        fetcher.get(f"{site.url}/")
    with pytest.raises(UnreadableDocumentError, match="more than 5 times"):
        fetcher.get(f"{site.url}/loop")


def test_a_page_that_never_ends_is_left(fetcher: Fetcher, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generation.retrieval.fetching.MAX_DOCUMENT_BYTES", 1000)
    site.pages = {"/": "x" * 2000}
    with pytest.raises(UnreadableDocumentError, match="MiB"):
        fetcher.get(f"{site.url}/")


def test_networks_are_networks() -> None:
    with pytest.raises(InvalidRequestError, match=r"knowledge\.networks"):
        Fetcher(["intranet"])
