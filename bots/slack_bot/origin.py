"""Which addresses are the platform's own: only these are sent anything, and only they see the token."""

from __future__ import annotations

import urllib.parse

from bots.slack_settings import DEFAULT_API_BASE_URL


class Origin:
    """The platform's addresses.

    Args:
        api_base_url: The Web API. With the platform's own, every host below ``slack.com`` counts, over HTTPS; with
            another one, exactly its scheme, host and port.
    """

    def __init__(self, api_base_url: str) -> None:
        self._base = urllib.parse.urlsplit(api_base_url)
        self._official = api_base_url == DEFAULT_API_BASE_URL

    def owns(self, url: str) -> bool:
        """Whether an address is the platform's."""
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
        except ValueError:
            return False
        if parts.username or parts.password or not parts.hostname:
            return False
        if self._official:
            host = parts.hostname.lower()
            return (
                parts.scheme == "https" and port in (None, 443) and (host == "slack.com" or host.endswith(".slack.com"))
            )
        return (parts.scheme, parts.hostname, port) == (self._base.scheme, self._base.hostname, self._base.port)
