"""Socket Mode: the platform is called, and speaks over that connection; no address of ours has to be reachable."""

from __future__ import annotations

from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp

from bots.delivery.surface import SlowDownError
from bots.slack_bot.workspaces import ApiRefusedError, Workspace, Workspaces, proxy_for
from bots.slack_settings import SlackSettings
from workers.errors import SettingsError

#: After a connection has broken without a word, the library looks at it this often.
_PING_INTERVAL_S = 2.0


async def check_app_token(workspaces: Workspaces, settings: SlackSettings) -> None:
    """Find out now whether connections can be opened: the library would try a wrong token for ever.

    Raises:
        SettingsError: It is not accepted.
        PlatformUnavailableError: The platform does not answer.
    """
    try:
        await Workspace("", None, "", "", workspaces.client(settings.socket_token)).call("apps.connections.open")
    except ApiRefusedError as error:
        raise SettingsError(
            f"SLACK_APP_TOKEN is not accepted by Slack ({error.error}): it begins with xapp- and has the scope "
            "connections:write."
        ) from None
    except SlowDownError:
        pass  # it is accepted, and the library waits


def handler(app: AsyncApp, settings: SlackSettings) -> AsyncSocketModeHandler:
    """What keeps a connection open; ``connect_async`` it."""
    made = AsyncSocketModeHandler(app, settings.socket_token, ping_interval=_PING_INTERVAL_S)
    made.client.proxy = proxy_for(settings.api_base_url)
    return made
