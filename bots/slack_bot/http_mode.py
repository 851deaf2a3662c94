"""HTTP mode: the platform sends signed requests to an address of ours, usually behind a proxy that speaks TLS.

A request is looked at only if the platform has signed it within the last five minutes and the same signature has not
been answered before; anybody else gets 401, and nothing is done.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.async_app import AsyncApp
from slack_sdk.signature import SignatureVerifier

from bots.slack_settings import SlackSettings

_MOST_BYTES = 2 * 2**20
_WINDOW_S = 300.0
_SIGNATURES_KEPT = 100_000

#: What reading a payload raises that is not of the documented form.
UNREADABLE = (TypeError, ValueError, LookupError, AttributeError)

_log = logging.getLogger("palaver.slack")


class Signatures:
    """Tells the platform's requests from others'.

    Args:
        secret: The app's signing secret.
    """

    def __init__(self, secret: str) -> None:
        self._verifier = SignatureVerifier(secret)
        self._answered: OrderedDict[str, float] = OrderedDict()

    def valid(self, body: bytes, timestamp: str, signature: str) -> bool:
        """Whether the platform has signed this lately, and it is no replay."""
        self._forget()
        if not timestamp.isascii() or not timestamp.isdecimal() or len(timestamp) > 12 or signature in self._answered:
            return False
        try:
            return self._verifier.is_valid(body, timestamp, signature)
        except (ValueError, TypeError):  # bytes that are no UTF-8, signatures that are no ASCII
            return False

    def answered(self, signature: str) -> None:
        """A request was answered well: the platform has no reason to send the same one again."""
        self._answered[signature] = time.monotonic()

    def _forget(self) -> None:
        now_s = time.monotonic()
        while self._answered:
            at_s = next(iter(self._answered.values()))
            # Timestamps may lie ahead as far as behind.
            if now_s - at_s < 2 * _WINDOW_S and len(self._answered) < _SIGNATURES_KEPT:
                return
            self._answered.popitem(last=False)


class HttpMode:
    """Listens for the platform's requests; use as an async context manager.

    Args:
        app: Answers them.
        settings: Where to listen, and the signing secret.
    """

    def __init__(self, app: AsyncApp, settings: SlackSettings) -> None:
        self._app = app
        self._settings = settings
        self._signatures = Signatures(settings.secret)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> HttpMode:
        server = web.Application(client_max_size=_MOST_BYTES)
        server.router.add_post(self._settings.http_path, self._request)
        server.router.add_get("/healthz", self._health)
        self._runner = web.AppRunner(server, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._settings.http_host, self._settings.http_port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner:
            await self._runner.cleanup()

    @property
    def address(self) -> str:
        """Where it listens, once it does."""
        if self._runner is None:
            raise RuntimeError("it does not listen yet")
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}{self._settings.http_path}"

    async def _request(self, request: web.Request) -> web.StreamResponse:
        signature = request.headers.get("X-Slack-Signature", "")
        timestamp = request.headers.get("X-Slack-Request-Timestamp", "")
        if not self._signatures.valid(await request.read(), timestamp, signature):
            return web.json_response({"error": "invalid request"}, status=401)
        try:
            answer = await self._app.async_dispatch(await to_bolt_request(request))
        except UNREADABLE as error:
            _log.warning("a request cannot be read: %s", type(error).__name__)
            return web.json_response({"error": "malformed request"}, status=400)
        if answer.status == 200:
            self._signatures.answered(signature)
        return await to_aiohttp_response(answer)

    async def _health(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text="ok")
