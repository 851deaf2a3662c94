"""A site's pages: what its sitemap lists and what its pages link to, below one address, as its robots.txt allows."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator, Mapping
from urllib.parse import urljoin, urlsplit
from urllib.robotparser import RobotFileParser

from generation.errors import UnreadableDocumentError
from generation.retrieval.fetching import USER_AGENT, Fetcher, Page
from generation.retrieval.types import Document

MAX_PAGES = 5000
MAX_CRAWL_DELAY_S = 10.0
_MAX_SITEMAPS = 50
_LINK = re.compile(
    rb"""<a\s[^<>]{0,2000}?href\s*=\s*(?:"([^"<>]{1,2000})"|'([^'<>]{1,2000})'|([^\s<>"']{1,2000}))""", re.IGNORECASE
)
_PLACE = re.compile(rb"<loc>\s*([^<\s]{1,2000})\s*</loc>", re.IGNORECASE)


def pages_of(start: str, known: Mapping[str, Document], fetcher: Fetcher) -> Iterator[Page | tuple[str, str]]:
    """Visit a site.

    Args:
        start: Its address; pages below the folder of it belong to the site.
        known: Address -> document as it was when it was last fetched; these are visited as well.
        fetcher: Fetches.

    Yields:
        Pages, or an address and why it cannot be fetched.

    Raises:
        UnreadableDocumentError: The site cannot be visited at all.
    """
    below = scope_of(start)
    robots = _robots(start, fetcher)
    delay_s = min(float(robots.crawl_delay(USER_AGENT) or 0.0), MAX_CRAWL_DELAY_S)
    waiting = dict.fromkeys([start, *known, *_in_sitemaps(robots.site_maps() or [f"{below}sitemap.xml"], fetcher)])
    seen: set[str] = set()
    while waiting and len(seen) < MAX_PAGES:
        url = next(iter(waiting))
        del waiting[url]
        if url in seen or not url.startswith(below) or not robots.can_fetch(USER_AGENT, url):
            continue
        seen.add(url)
        before = known.get(url)
        try:
            etag, modified = (before.etag, before.modified) if before else (None, None)
            page = fetcher.get(url, etag, modified, within=below)
        except UnreadableDocumentError as error:
            yield url, str(error)
            continue
        if page.url != url and page.url in seen:
            continue  # it leads to a page that was visited
        seen.add(page.url)
        yield page
        if page.name.endswith(".html"):
            waiting |= dict.fromkeys(each for each in _links(page) if each not in seen)
        time.sleep(delay_s)
    if waiting and len(seen) >= MAX_PAGES:
        yield start, f"the site has more than {MAX_PAGES:,} pages; the others were not visited"


def scope_of(start: str) -> str:
    """What the addresses of a site's pages begin with."""
    parts = urlsplit(start)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rpartition('/')[0]}/"


def _robots(start: str, fetcher: Fetcher) -> RobotFileParser:
    robots = RobotFileParser()
    # The rules of RFC 9309: who has none allows all; who cannot tell them allows nothing.
    page = fetcher.get(urljoin(start, "/robots.txt"))
    robots.parse(page.content.decode("utf-8", "replace").splitlines() if page.state == "there" else [])
    return robots


def _in_sitemaps(places: list[str], fetcher: Fetcher) -> list[str]:
    """Addresses that sitemaps list, and those that they refer to."""
    found: list[str] = []
    for number, place in enumerate(waiting := list(places)):
        if number >= _MAX_SITEMAPS:
            break
        try:
            content = fetcher.get(place, accept_other=True).content
        except UnreadableDocumentError:
            continue
        listed = [html.unescape(each.decode("utf-8", "replace")) for each in _PLACE.findall(content)]
        (waiting if b"<sitemapindex" in content[:2000] else found).extend(listed)
    return found[:MAX_PAGES]


def _links(page: Page) -> Iterator[str]:
    for match in _LINK.finditer(page.content):
        written = html.unescape(next(part for part in match.groups() if part).decode("utf-8", "replace"))
        try:
            yield urljoin(page.url, written.strip()).partition("#")[0]
        except ValueError:  # such as http://[
            continue
