"""Who may do what in a workspace: its admins are the moderators."""

from __future__ import annotations

import logging
import time

from bots.delivery.surface import SurfaceError
from bots.slack_bot.workspaces import Workspace
from workers.errors import WorkersError

_KEPT_S = 300.0
_MOST_KEPT = 10_000

_log = logging.getLogger("palaver.slack")


class Members:
    """Asks the platform, and remembers its answers for some minutes."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, bool]] = {}

    async def is_admin(self, workspace: Workspace, user: str) -> bool:
        """Whether somebody is an admin or owner of a workspace; no when the platform does not say."""
        key = (workspace.tenant, user)
        found = self._known.get(key)
        if found and time.monotonic() - found[0] < _KEPT_S:
            return found[1]
        try:
            member = (await workspace.ask("users.info", user=user)).get("user", {})
        except (SurfaceError, WorkersError) as error:
            _log.info("workspace %s: a member's role is not known: %s", workspace.team, error)
            return False
        admin = bool(member.get("is_admin") or member.get("is_owner") or member.get("is_primary_owner"))
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        self._known[key] = (time.monotonic(), admin)
        return admin
