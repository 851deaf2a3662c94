"""Answers in channels, threads and direct messages: native streams where there are any, edited messages elsewhere.

A stream only grows, and for some minutes only: ``life`` tells when an answer should go on in the next one. Whatever a
stream cannot show (an answer that began anew, one that found no place to go on elsewhere, one whose last piece may or
may not have arrived) is shown by ending the stream and editing its message, which is always right because an edit
carries the whole text.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from dataclasses import dataclass
from typing import Any

from bots.delivery.content import View
from bots.delivery.ledger import Place
from bots.delivery.pacing import Budget
from bots.delivery.rollover import Life
from bots.delivery.splitting import Measure
from bots.delivery.surface import ExpiredError, GoneError, SlowDownError, Surface
from bots.slack_bot import blocks, wording
from bots.slack_bot.claims import Claims
from bots.slack_bot.markup import defused, escaped, measure
from bots.slack_bot.outbound import Outbound, patiently
from bots.slack_bot.target import IMAGE, Target
from bots.slack_bot.uploads import Uploads
from bots.slack_bot.workspaces import ApiRefusedError, PlaceGoneError, Workspace

#: What a stream says when it takes no more.
_STREAM_DEAD = "message_not_in_streaming_state"
_STREAM_OVER = frozenset({_STREAM_DEAD, "stopped_by_user"})
#: Where the bot is not, a command's answer has other ways.
_NOT_THERE = frozenset({"not_in_channel", "channel_not_found", "is_archived", "restricted_action"})
#: May become a mention with the next characters.
_UNDECIDED = re.compile(r"(?:@\w*|<)\Z")
#: What the platform says to blocks that it does not take.
_NO_MARKDOWN = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long"})
_SEARCHED = 100
_COMPARED_LATER_S = 1.0
_METADATA = "palaver_answer"
#: Letters that must agree before a stream without a mark is taken for the one that was lost.
_ALIKE_CHARS = 200
#: When a stream has used so much of its life, the answer goes on in the next one as soon as that looks well.
_AGING = 0.75

_log = logging.getLogger("palaver.slack")


@dataclass(slots=True)
class _Stream:
    """An open stream.

    Attributes:
        sent: What it shows, as far as is known.
        began_s: When it began, monotonic.
        certain: Whether that is known: False once a call's reply was lost.
    """

    sent: str
    began_s: float
    certain: bool = True


class ChannelSurface:
    """One place for one job's answer.

    Args:
        workspace: Whose.
        target: Where there.
        job_id: Whose answer.
        outbound: What may be sent to the workspace.
        claims: Which message is whose.
        uploads: Puts pictures there.
        stream_life_s: Longest life of a stream; 0 for no streams.
        fallback: Where the answer goes if the bot may not write here.
    """

    def __init__(
        self,
        workspace: Workspace,
        target: Target,
        job_id: str,
        outbound: Outbound,
        claims: Claims,
        uploads: Uploads,
        stream_life_s: float,
        fallback: Surface | None = None,
    ) -> None:
        self._workspace = workspace
        self._target = target
        self._job_id = job_id
        self._outbound = outbound
        self._claims = claims
        self._uploads = uploads
        self._stream_life_s = stream_life_s
        self._fallback = fallback
        self._streams: dict[str, _Stream] = {}
        self._begun: dict[str, str] = {}  # by nonce: posted here, and maybe recorded nowhere yet
        self._outlived: set[str] = set()  # messages whose stream is over while their answer goes on
        self._processing = False
        self._budget = outbound.appends if self._streamable else outbound.edits

    @property
    def limit(self) -> int:
        """Of one message's ``markdown``."""
        return blocks.MARKDOWN_LIMIT

    @property
    def measure(self) -> Measure:
        """Counts what defusing may add."""
        return measure

    @property
    def budget(self) -> Budget:
        """Of the workspace, for the way in which this answer will most likely be shown."""
        return self._budget

    def fallback(self) -> Surface | None:
        """The next way."""
        return self._fallback

    async def announce(self, view: View) -> bool:
        """Show a waiting line as the session's status, with the platform's own Stop."""
        if not view.waiting or view.pictures or not self._streamable:
            return False
        place = {"channel_id": self._target.channel, "thread_ts": self._target.thread}
        try:
            if not self._processing:
                if self._outbound.sessions.wait_s("edit") > 0:
                    return False
                self._outbound.sessions.spend()
                await self._begin_session(place)
            await self._workspace.call("assistant.threads.setStatus", **place, status=wording.status(view.text))
        except ApiRefusedError as error:
            _log.info("workspace %s has no agent sessions (%s)", self._workspace.team, error.error)
            self._outbound.agent.missing()
            return False
        except SlowDownError as refusal:
            self._outbound.sessions.block(refusal.retry_after_s)
            return False
        return True

    async def _begin_session(self, place: dict[str, str]) -> None:
        user, title = self._target.user, self._target.title or None
        answer = await self._workspace.call(
            "agents.sessions.setStatus", **place, status="processing", title=title, initiator_user_id=user
        )
        if "missing_agent_session_stopped_event_subscription" in str(answer.get("warning", "")):
            raise ApiRefusedError("agents.sessions.setStatus", "no native stop")
        self._processing = True

    async def post(self, view: View, place: Place) -> str:
        """Post a message, or find the one that an earlier process has posted."""
        found = self._begun.get(place.nonce) or (await self._find(view, place) if place.reserved_before else None)
        ts = found or await self._start_stream(view) or await self._post(view, place)
        self._begun[place.nonce] = ts
        await self._claims.claim(self._workspace.tenant, self._target.channel, ts, self._job_id)
        if found:
            await self.edit(found, view)
        return ts

    async def edit(self, message_id: str, view: View) -> None:
        """Append to a stream, or edit a message."""
        stream = self._streams.get(message_id)
        if stream is None:
            await self._update(message_id, view)
        elif not await self._grow(message_id, stream, view):
            if message_id in self._streams:
                await self._end_stream(message_id)
            await self._update(message_id, view)

    async def delete(self, message_id: str) -> None:
        """Delete a message."""
        try:
            if message_id in self._streams:
                await self._end_stream(message_id)
            await self._workspace.call("chat.delete", channel=self._target.channel, ts=message_id)
        except GoneError:
            pass

    def life(self, message_id: str) -> Life:
        """That of a message's stream, where another one could be opened."""
        stream = self._streams.get(message_id)
        if not self._streamable or self._outbound.starts.wait_s("final") > 0:
            return Life.FRESH
        if stream is None:
            return Life.OVER if message_id in self._outlived else Life.FRESH
        age = (time.monotonic() - stream.began_s) / self._stream_life_s
        return Life.FRESH if age < _AGING else Life.AGING if age < 1 else Life.OVER

    # Streams

    @property
    def _streamable(self) -> bool:
        wanted = bool(self._stream_life_s and self._target.thread) and self._target.kind != IMAGE
        return wanted and self._outbound.streams.there and self._outbound.agent.there

    async def _start_stream(self, view: View) -> str | None:
        """Open a stream with this text; None where the answer is better an edited message."""
        if not self._streamable or view.waiting or view.complete or view.pictures:
            return None
        if self._outbound.starts.wait_s("final") > 0:
            return None
        self._outbound.starts.spend()
        text = _settled(view)
        try:
            answer = await self._workspace.call(
                "chat.startStream",
                channel=self._target.channel,
                thread_ts=self._target.thread,
                markdown_text=text or None,
                recipient_team_id=self._workspace.team,
                recipient_user_id=self._target.user,
            )
        except SlowDownError as refusal:
            self._outbound.starts.block(refusal.retry_after_s)
            return None
        except ApiRefusedError as error:
            _log.info("workspace %s takes no streams (%s)", self._workspace.team, error.error)
            self._outbound.streams.missing()
            return None
        ts = str(answer["ts"])
        self._streams[ts] = _Stream(text, time.monotonic())
        return ts

    async def _grow(self, ts: str, stream: _Stream, view: View) -> bool:
        """Append what is new; returns whether the stream shows the view by that."""
        text = defused(view.text) if view.complete else _settled(view)
        # A last piece may be a little late: the platform says so if it is too late.
        alive = view.complete or time.monotonic() - stream.began_s < self._stream_life_s
        if not alive:
            self._outlived.add(ts)
        if not (stream.certain and alive and text.startswith(stream.sent)) or view.pictures:
            return False
        stream.certain = False
        try:
            await self._append(ts, stream, text, view)
        except ApiRefusedError as error:
            if error.error in _STREAM_OVER:
                del self._streams[ts]
                self._outlived |= {ts} if error.error == _STREAM_DEAD else set()
            else:
                _log.info("a stream of workspace %s takes no more (%s)", self._workspace.team, error.error)
            return False
        except SlowDownError:
            stream.certain = True
            raise
        stream.sent, stream.certain = text, True
        return True

    async def _append(self, ts: str, stream: _Stream, text: str, view: View) -> None:
        new = text[len(stream.sent) :]
        if new and (not view.complete or self._outbound.stops.wait_s("final") > 0):
            # Also where its end has to wait: everything can be read before.
            await self._workspace.call("chat.appendStream", channel=self._target.channel, ts=ts, markdown_text=new)
            stream.sent, new = text, ""
        if view.complete:
            await self._stop_stream(ts, new, blocks.rows(view.buttons) or None)
            del self._streams[ts]

    async def _end_stream(self, ts: str) -> None:
        """Close a stream, whatever it shows."""
        with contextlib.suppress(ApiRefusedError):  # it is closed already
            await self._stop_stream(ts)
        self._streams.pop(ts, None)

    async def _stop_stream(self, ts: str, text: str = "", under: list[blocks.Block] | None = None) -> None:
        arguments = {"channel": self._target.channel, "ts": ts, "markdown_text": text or None, "blocks": under}
        await patiently(self._outbound.stops, lambda: self._workspace.call("chat.stopStream", **arguments))

    # Messages

    async def _post(self, view: View, place: Place) -> str:
        arguments = {
            "channel": self._target.channel,
            "thread_ts": self._target.thread or None,
            "metadata": {"event_type": _METADATA, "event_payload": {"place": place.nonce}},
            "unfurl_links": False,
            "unfurl_media": False,
            **await self._content(view),
        }
        budget = self._outbound.posts(self._target.channel)
        try:
            answer = await patiently(budget, lambda: self._showing("chat.postMessage", arguments, view))
        except PlaceGoneError as error:
            if error.error in _NOT_THERE and self._fallback is not None:
                raise ExpiredError(str(error)) from None
            raise
        await self._uploads.tidy(str(answer["ts"]), view.pictures)
        return str(answer["ts"])

    async def _showing(self, method: str, arguments: dict[str, Any], view: View) -> dict[str, Any]:
        """Post or edit; where the platform does not take Markdown, the same words as plain text."""
        try:
            return await self._workspace.call(method, **arguments)
        except ApiRefusedError as error:
            # A picture's file may not be ready yet: then the message is tried again as it is.
            if error.error not in _NO_MARKDOWN or view.pictures or not view.text:
                raise
            _log.warning("job %s: its Markdown was refused (%s) and is shown as plain text", self._job_id, error.error)
        under = [block for block in arguments["blocks"] if block["type"] == "actions"]
        return await self._workspace.call(method, **arguments | {"blocks": [*blocks.plain(view.text), *under]})

    async def _update(self, ts: str, view: View, again: bool = True) -> None:
        content = await self._content(view)
        try:
            await self._showing("chat.update", {"channel": self._target.channel, "ts": ts, **content}, view)
        except ApiRefusedError as error:
            # An earlier process may have left a stream open, which can only be edited once it is closed.
            if again and error.error not in _NO_MARKDOWN:
                await self._end_stream(ts)
                await self._update(ts, view, again=False)
            elif error.error == "cant_update_message":
                raise GoneError(str(error)) from None
            else:
                raise
        await self._uploads.tidy(ts, view.pictures)

    async def _content(self, view: View) -> dict[str, Any]:
        shown: list[blocks.Block] = []
        if self._target.question:
            asker = escaped(self._target.asker or self._target.user)
            shown.append(blocks.context(f"*{asker}* asked: {escaped(self._target.question)}"))
        if view.text:
            shown.append(blocks.markdown(view.text))
        open_ones = [each for each in view.pictures if not each.covered]
        shown += [blocks.picture(await self._uploads.put(self._workspace, each), each.alt) for each in open_ones]
        if len(open_ones) < len(view.pictures):
            shown.append(blocks.context(wording.COVERED))
        return {"text": blocks.summary(view.text or "A picture"), "blocks": [*shown, *blocks.rows(view.buttons)]}

    async def _find(self, view: View, place: Place) -> str | None:
        """The message that an earlier process posted for this place without living to record it."""
        channel, thread = self._target.channel, self._target.thread
        try:
            if thread:
                answer = await self._workspace.ask(
                    "conversations.replies", channel=channel, ts=thread, limit=_SEARCHED, include_all_metadata="true"
                )
            else:
                answer = await self._workspace.ask(
                    "conversations.history", channel=channel, limit=_SEARCHED, include_all_metadata="true"
                )
        except ApiRefusedError as error:
            _log.warning("job %s: an earlier message cannot be looked for (%s)", self._job_id, error.error)
            return None
        own = [each for each in answer.get("messages", []) if each.get("bot_id") == self._workspace.bot_id]
        marked = [each for each in own if _mark(each) == place.nonce]
        streams = [each for each in own if not _mark(each)] if thread else []
        alike = [each for each in streams if _alike(str(each.get("text", "")), view.text)]
        for each in [*marked, *alike]:
            if await self._unclaimed(each, place):
                return str(each["ts"])
        if view.waiting and any([await self._unclaimed(each, place) for each in streams]):
            raise SlowDownError(_COMPARED_LATER_S)  # one of them may be this answer: its own words will tell
        return None

    async def _unclaimed(self, message: dict[str, Any], place: Place) -> bool:
        """Whether a message may be this part of this answer: it is known to be no other's."""
        ts = str(message["ts"])
        if ts in place.others:
            return False
        known = await self._claims.job_of(self._workspace.tenant, self._target.channel, ts)
        return known in (None, self._job_id)


def _settled(view: View) -> str:
    """As much of a growing text as no later character can change."""
    text = view.text[: len(view.text) - view.closing_chars]
    return defused(_UNDECIDED.sub("", text))


def _mark(message: dict[str, Any]) -> str:
    metadata = message.get("metadata") or {}
    return str(metadata.get("event_payload", {}).get("place", "")) if metadata.get("event_type") == _METADATA else ""


def _alike(there: str, wanted: str) -> bool:
    """Whether a message may be the beginning of a text, however the platform has rewritten its markup."""
    first, second = ("".join(filter(str.isalnum, text))[:_ALIKE_CHARS] for text in (there, wanted))
    return bool(first and second) and (second.startswith(first) or first.startswith(second))
