"""Makes the surface of an answer from its reply handle, in whatever process; and closes what an answer has opened."""

from __future__ import annotations

import logging
from dataclasses import replace

from bots.delivery.promises import Promise
from bots.delivery.surface import Surface, SurfaceError
from bots.slack_bot.claims import Claims
from bots.slack_bot.origin import Origin
from bots.slack_bot.outbound import Outbounds, patiently
from bots.slack_bot.private_surfaces import DirectSurface, ResponseSurface, ResponseUrls
from bots.slack_bot.surface import ChannelSurface
from bots.slack_bot.target import FRONT_END, IMAGE, Target
from bots.slack_bot.uploads import Uploads
from bots.slack_bot.workspaces import Workspace, Workspaces
from bots.slack_settings import SlackSettings
from bots.usage import UsageRecords
from workers.contract import Event, ReplyTo
from workers.errors import WorkersError

_log = logging.getLogger("palaver.slack")


class Surfaces:
    """All surfaces of this process.

    Args:
        workspaces: Where the bot is installed.
        settings: Whether answers stream.
        outbounds: What may be sent.
        claims: Which message is whose.
        origin: Which addresses are the platform's.
        urls: Sends through ``response_url``.
        usage: Counts what has been answered.
    """

    def __init__(
        self,
        workspaces: Workspaces,
        settings: SlackSettings,
        outbounds: Outbounds,
        claims: Claims,
        origin: Origin,
        urls: ResponseUrls,
        usage: UsageRecords,
    ) -> None:
        self._workspaces = workspaces
        self._stream_life_s = settings.stream_life_s if settings.streaming else 0.0
        self._outbounds = outbounds
        self._claims = claims
        self._origin = origin
        self._urls = urls
        self._usage = usage
        self._at_work: dict[tuple[str, str, str], set[str]] = {}

    def open(self, job_id: str, reply: ReplyTo) -> Surface | None:
        """The surface of a job's answer; None if its handle says nothing, or the bot was removed from its workspace."""
        target = Target.of(reply)
        workspace = self._workspaces.find(target.team, target.enterprise) if target else None
        if target is None or workspace is None:
            return None
        self._at_work.setdefault(target.place, set()).add(job_id)
        return self._channel(workspace, target, job_id, self._beside(workspace, target, job_id))

    async def ended(self, promise: Promise, event: Event | None) -> None:
        """The last message of an answer is shown: the agent's session is not at work any more."""
        target = Target.of(promise.reply)
        if target is not None and event is not None:
            await self._usage.add(FRONT_END, target.user, event)
        workspace = self._workspaces.find(target.team, target.enterprise) if target else None
        if target is None or workspace is None or not target.thread or target.kind == IMAGE:
            return
        others = self._at_work.get(target.place, set())
        others.discard(promise.job_id)
        if others:
            return
        self._at_work.pop(target.place, None)
        if not (self._stream_life_s and self._outbounds.of(workspace.team).agent.there):
            return
        place = {"channel_id": target.channel, "thread_ts": target.thread}
        sessions = self._outbounds.of(workspace.team).sessions
        try:
            await patiently(sessions, lambda: workspace.call("agents.sessions.setStatus", **place, status="active"))
        except (SurfaceError, WorkersError) as error:
            _log.info("workspace %s: a session's status was not set: %s", workspace.team, error)

    def _beside(self, workspace: Workspace, target: Target, job_id: str) -> Surface | None:
        """Where a command's answer goes if the bot may not write in its channel."""
        if not target.response_url:
            return None

        def in_channel(channel: str) -> ChannelSurface:
            return self._channel(workspace, replace(target, channel=channel, thread=""), job_id, None)

        direct = DirectSurface(workspace, target.user, in_channel)
        return ResponseSurface(target.response_url, self._urls, direct, target.made_s)

    def _channel(self, workspace: Workspace, target: Target, job_id: str, fallback: Surface | None) -> ChannelSurface:
        uploads = Uploads(self._workspaces.session, self._origin)
        outbound = self._outbounds.of(workspace.team)
        return ChannelSurface(workspace, target, job_id, outbound, self._claims, uploads, self._stream_life_s, fallback)
