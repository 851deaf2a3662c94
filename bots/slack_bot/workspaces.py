"""The workspaces that this bot is installed in, and calls of the Web API on behalf of one of them.

Every call goes through ``Workspace.call``, which maps whatever the library raises to the errors of a surface. The
library's own retries are off: it reads only the first digit of ``Retry-After``, and it would post a message again whose
reply was lost.
"""

from __future__ import annotations

import asyncio
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError, SlackRequestError
from slack_sdk.web.async_client import AsyncWebClient

from bots.delivery.surface import GoneError, SlowDownError, SurfaceError
from bots.slack_settings import SlackSettings
from workers.errors import SettingsError, WorkersError
from workers.metrics import PLATFORM_REFUSALS

_TIMEOUT_S = 20
#: What the platform says when a bot's token is no good.
_UNAUTHORIZED = frozenset(
    {
        "account_inactive",
        "app_uninstalled",
        "invalid_auth",
        "not_authed",
        "org_login_required",
        "token_expired",
        "token_revoked",
    }
)
#: What it says when nothing can be shown in a place, or not any more.
_GONE = frozenset(
    {
        "cant_delete_message", "channel_not_found", "edit_window_closed", "ekm_access_denied",
        "is_archived", "message_not_found", "messages_tab_disabled", "no_permission", "not_in_channel",
        "restricted_action", "restricted_action_read_only_channel", "restricted_action_thread_locked",
        "team_access_not_granted", "team_not_found", "thread_not_found", "user_not_found", "cannot_reply_to_message",
    }
)  # fmt: skip


class PlatformUnavailableError(WorkersError):
    """The platform cannot be reached."""

    code = "platform_unavailable"
    exit_code = 69


class PlaceGoneError(GoneError):
    """Nothing can be shown in a place, or not any more.

    Args:
        method: Of the Web API.
        error: The platform's word for it.
    """

    def __init__(self, method: str, error: str) -> None:
        super().__init__(f"{method}: {error}")
        self.error = error


class ApiRefusedError(SurfaceError):
    """The platform says no in a way of its own.

    Args:
        method: Of the Web API.
        error: The platform's word for it.
    """

    def __init__(self, method: str, error: str) -> None:
        super().__init__(f"{method}: {error}")
        self.error = error


@dataclass(frozen=True, slots=True)
class Workspace:
    """One workspace, and the bot's identity in it.

    Attributes:
        team: Its id.
        enterprise: Id of the organization that it belongs to, if any.
        bot_user: The bot's user id there.
        bot_id: And its bot id.
        client: Calls with its token.
    """

    team: str
    enterprise: str | None
    bot_user: str
    bot_id: str
    client: AsyncWebClient

    @property
    def tenant(self) -> str:
        """What limits, histories and configuration are kept for."""
        return f"slack-{self.enterprise}-{self.team}" if self.enterprise else f"slack-{self.team}"

    async def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the Web API.

        Args:
            method: Its name, such as ``chat.postMessage``.
            arguments: None values are left out.

        Returns:
            The answer.

        Raises:
            SlowDownError: Too many calls.
            PlaceGoneError: Nothing can be shown there.
            ApiRefusedError: Any other no.
            PlatformUnavailableError: It did not answer, or not sensibly.
        """
        return await self._request(method, json=_given(arguments))

    async def ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        """``call`` for methods that read: they take their arguments in the address."""
        return await self._request(method, http_verb="GET", params=_given(arguments))

    async def _request(self, method: str, **how: Any) -> dict[str, Any]:
        try:
            response = await self.client.api_call(method, **how)
        except SlackApiError as error:
            raise _mapped(method, error) from None
        except (aiohttp.ClientError, TimeoutError, OSError, SlackRequestError, ValueError) as error:
            raise PlatformUnavailableError(f"{method} was not answered ({type(error).__name__}).") from None
        return dict(response.data) if isinstance(response.data, dict) else {}


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _mapped(method: str, error: SlackApiError) -> Exception:
    status = int(getattr(error.response, "status_code", 0) or getattr(error.response, "status", 0) or 0)
    if status == 429:
        PLATFORM_REFUSALS.labels("slack").inc()
        return SlowDownError(retry_after_s(error))
    data = getattr(error.response, "data", None)
    word = str(data.get("error", "")) if isinstance(data, dict) else ""
    if word == "ratelimited":
        PLATFORM_REFUSALS.labels("slack").inc()
        return SlowDownError(retry_after_s(error))
    if status >= 500 or not word or word in {"internal_error", "fatal_error", "service_unavailable", "request_timeout"}:
        return PlatformUnavailableError(f"{method} was answered with {word or status}.")
    if word in _GONE:
        return PlaceGoneError(method, word)
    return ApiRefusedError(method, word)


def retry_after_s(error: SlackApiError) -> float:
    """What the platform asks to wait; a second where it does not say."""
    headers = getattr(error.response, "headers", None) or {}
    value = next((str(headers[name]) for name in headers if name.lower() == "retry-after"), "")
    return float(value) if re.fullmatch(r"\d{1,6}", value) else 1.0


class Workspaces:
    """All of them, and the connections they share; use as an async context manager.

    Args:
        settings: Tokens and the platform's address.
    """

    def __init__(self, settings: SlackSettings) -> None:
        self._settings = settings
        self._known: dict[str, Workspace] = {}
        self._organizations: dict[str, Workspace] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Workspaces:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The shared connections."""
        if self._session is None:
            raise RuntimeError("the workspaces are not open")
        return self._session

    async def connect(self) -> None:
        """Ask the platform who we are, once for each token.

        Raises:
            SettingsError: There is no token, or one of them is not accepted.
            PlatformUnavailableError: The platform does not answer.
        """
        tokens = self._settings.bot_tokens
        for number, token in enumerate(tokens, 1):
            name = "SLACK_BOT_TOKEN" if len(tokens) == 1 else f"SLACK_BOT_TOKEN (number {number})"
            self._add(await self._identify(name, token))

    async def _identify(self, name: str, token: str) -> tuple[Workspace, bool]:
        client = self.client(token)
        nobody = Workspace("", None, "", "", client)
        for attempt in range(1, 6):
            try:
                answer = await nobody.call("auth.test")
                break
            except ApiRefusedError as error:
                hint = "copy it again from the app's page, OAuth & Permissions"
                raise SettingsError(f"{name} is not accepted by Slack ({error.error}): {hint}.") from None
            except SlowDownError as refusal:
                await asyncio.sleep(min(refusal.retry_after_s, 30.0))
            except PlatformUnavailableError:
                if attempt == 3:
                    raise
                await asyncio.sleep(0.5 * attempt)
        else:
            raise PlatformUnavailableError("auth.test is rate limited.")
        enterprise = answer.get("enterprise_id") or None
        known = Workspace(
            str(answer["team_id"]), enterprise, str(answer["user_id"]), str(answer.get("bot_id", "")), client
        )
        return known, bool(answer.get("is_enterprise_install"))

    def _add(self, identified: tuple[Workspace, bool]) -> None:
        workspace, whole_organization = identified
        if whole_organization and workspace.enterprise:
            self._organizations[workspace.enterprise] = workspace
        else:
            self._known[workspace.team] = workspace

    def client(self, token: str | None) -> AsyncWebClient:
        """A client of the Web API with this token, over the shared connections."""
        client = AsyncWebClient(
            token=token,
            base_url=self._settings.api_base_url,
            session=self._session,
            timeout=_TIMEOUT_S,
            retry_handlers=[],
        )
        client.proxy = proxy_for(self._settings.api_base_url)
        return client

    def find(self, team: str | None, enterprise: str | None = None) -> Workspace | None:
        """The workspace of a team, installed there or in its whole organization; None if the bot is in neither.

        Args:
            team: Which; None where the platform speaks of an organization as a whole.
            enterprise: Its organization.
        """
        if team and team in self._known:
            return self._known[team]
        organization = self._organizations.get(enterprise or "")
        return replace(organization, team=team or organization.team) if organization else None

    def all(self) -> list[Workspace]:
        """Every installation."""
        return [*self._known.values(), *self._organizations.values()]


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for an address; unlike the library's own rule it heeds ``NO_PROXY``."""
    parts = urllib.parse.urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc) or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)
