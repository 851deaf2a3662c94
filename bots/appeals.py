"""Appeals in chat platforms: from a refused person to the tenant's moderators, and the outcome back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from bots.delivery.buttons import Button
from bots.moderation import LateRecord
from generation.errors import InvalidRequestError
from generation.moderation.appeals import Appeal, Appeals, Filed, Outcome
from generation.moderation.types import TITLES, Category
from workers.errors import RefusedError

#: Decisions are written behind the refusal that they belong to, by another process perhaps.
_WRITTEN_AFTER_S = (0.3, 0.7, 1.5)
_LOOK_EVERY_S = 3.0
_TEXT_CHARS = 1_000

FILED = "Your appeal is with the moderators. You will be told what they decide."
FILED_BEFORE = "You have appealed against this already; the moderators have not decided yet."
NONE_OPEN = "No appeals are waiting."
NOT_A_MODERATOR = "Only a moderator can decide this."
_NO_RECORD = "Appeals cannot be taken here: the operator keeps no record of decisions."

_log = logging.getLogger("palaver.moderation")

#: Tells one outcome; returns whether it was told, or never can be.
TellOutcome = Callable[[Outcome], Awaitable[bool]]


class AppealDesk:
    """What a front-end does about appeals; the record is asked in threads, for it may be slow.

    Args:
        decisions: The record.
        platform: Which front-end tells the outcomes.
    """

    def __init__(self, decisions: LateRecord, platform: str) -> None:
        self._decisions = decisions
        self._platform = platform

    async def file(self, job_id: str, tenant: str, user: str, route: str) -> Filed:
        """Record an appeal, once however often it is made.

        Args:
            job_id: What was refused.
            tenant: Where.
            user: Who appeals.
            route: How to reach that person, in this front-end's words.

        Raises:
            GenerationError: It is no refused request of that person's, or the record cannot be opened.
            RefusedError: There is no record.
        """
        for pause_s in _WRITTEN_AFTER_S:
            try:
                return await asyncio.to_thread(self._file, job_id, tenant, user, route)
            except InvalidRequestError:
                await asyncio.sleep(pause_s)
        return await asyncio.to_thread(self._file, job_id, tenant, user, route)

    async def resolve(self, job_id: str, tenant: str, moderator: str, *, approve: bool) -> Appeal:
        """Record a moderator's answer; if another one was faster, returns what that one has decided.

        Raises:
            GenerationError: There is no such appeal, or the record cannot be opened.
            RefusedError: There is no record.
        """

        def resolve() -> Appeal:
            book = self._book()
            appeal = book.find(job_id, tenant)
            if appeal is None:
                raise InvalidRequestError("There is no such appeal any more.")
            if appeal.status != "open":
                return appeal
            return book.resolve(appeal.appeal_id, tenant, moderator, approve=approve)

        return await asyncio.to_thread(resolve)

    async def open_ones(self, tenant: str) -> list[Appeal]:
        """Appeals that wait, the oldest first.

        Raises:
            GenerationError: The record cannot be opened.
            RefusedError: There is no record.
        """
        return await asyncio.to_thread(lambda: self._book().appeals(tenant, "open"))

    async def tell_outcomes(self, tell: TellOutcome) -> None:
        """Tell outcomes that nobody has told yet.

        Raises:
            GenerationError: The record cannot be opened.
            RefusedError: There is no record.
        """
        for outcome in await asyncio.to_thread(lambda: self._book().outcomes(self._platform)):
            if await tell(outcome):
                await asyncio.to_thread(self._forget_route, outcome.appeal.appeal_id)

    async def watch(self, tell: TellOutcome) -> None:
        """Tell outcomes until cancelled: also of answers at the command line, and after a restart."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                await self.tell_outcomes(tell)
            except RefusedError:
                return
            except Exception as error:  # noqa: BLE001 - whatever the database says, it is asked again
                _log.warning("outcomes of appeals cannot be read: %s", type(error).__name__)

    def _file(self, job_id: str, tenant: str, user: str, route: str) -> Filed:
        book = self._book()
        return book.appeal(job_id, tenant, user, self._platform, route)

    def _forget_route(self, appeal_id: int) -> None:
        self._book().told(appeal_id)

    def _book(self) -> Appeals:
        book = self._decisions.open()
        if not isinstance(book, Appeals):
            raise RefusedError("appeals", float("inf"), _NO_RECORD)
        return book


def answer_to_asker(filed: Filed) -> str:
    """What somebody reads who has pressed Appeal."""
    if filed.new:
        return FILED
    return FILED_BEFORE if filed.appeal.status == "open" else outcome_in_words(filed.appeal)


def for_moderators(appeal: Appeal, asker: str = "") -> str:
    """An appeal as moderators read it.

    Args:
        appeal: With its text, where the tenant has texts kept.
        asker: Who appeals, as the platform writes people; nothing if that is not known.
    """
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(appeal.at_s))
    by = f" by {asker}" if asker else ""
    quoted = f"\n> {' '.join(appeal.text.split())[:_TEXT_CHARS]}" if appeal.text else ""
    return f"Appeal {appeal.appeal_id}{by}, {when}: a request was stopped for {_title(appeal)}.{quoted}"


def buttons_for(appeal: Appeal) -> tuple[Button, Button]:
    """What moderators can do about it."""
    return Button("approve", appeal.job_id), Button("deny", appeal.job_id)


def outcome_in_words(appeal: Appeal) -> str:
    """An outcome as the person reads it who has appealed."""
    about = f"Your appeal {appeal.appeal_id} ({_title(appeal)})"
    if appeal.status == "approved":
        return f"{about} was approved: the moderators agree that the refusal was a mistake. It is on record."
    return f"{about} was denied: the moderators have looked at it, and the refusal stands."


def decided_in_words(appeal: Appeal, moderator: str) -> str:
    """What stands in place of the buttons once a moderator has decided."""
    return f"{appeal.status.capitalize()} by {moderator}."


def _title(appeal: Appeal) -> str:
    try:
        return TITLES[Category(appeal.category)]
    except ValueError:
        return "something that moderation found"
