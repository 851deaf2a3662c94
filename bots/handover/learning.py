"""What resolved hand-overs teach: drafts that a moderator decides on; what is approved the next question finds."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import Any

from bots import tuning
from bots.delivery.buttons import Button
from bots.handover import wording
from bots.handover.forgetting import Only
from bots.handover.opening import LateStore
from bots.handover.tickets import Draft, Ticket
from workers.client import Client, Ended
from workers.contract import AnswerBody, ReplyTo, Request
from workers.errors import WorkersError

#: Its jobs are followed here and told to no front-end.
_NOBODY = ReplyTo(front_end="-")
_LONGEST_S = 60.0
#: Somebody who wants to be forgotten waits so long for a worker; the job stays in the queue.
_FORGOTTEN_S = 30.0


class Learning:
    """Makes drafts and carries out what is decided.

    Args:
        store: Where drafts lie.
        client: The queue: the worker for answers keeps the knowledge.
    """

    def __init__(self, store: LateStore, client: Client) -> None:
        self._store = store
        self._client = client

    async def from_ticket(self, ticket: Ticket) -> str:
        """Make a draft of a resolved hand-over and show it to the team; returns what to tell who resolved it."""
        store = self._store.open()
        said = await asyncio.to_thread(store.said_by_team, ticket)
        if not said or not ticket.question.strip():
            return f"Resolved. {wording.NOT_ENOUGH}"
        draft = await asyncio.to_thread(store.draft, ticket, "\n".join(said))
        buttons = [Button(action, draft.draft_id).id for action in ("accept", "amend", "reject")]
        await asyncio.to_thread(store.post, ticket, "team", wording.draft(draft), buttons)
        return "Resolved. A draft of what was answered is in the thread."

    async def drafts(self, tenant: str) -> list[Draft]:
        """What waits for a moderator."""
        return await asyncio.to_thread(self._store.open().drafts, tenant)

    async def decide(
        self,
        tenant: str,
        draft_id: str,
        approved: bool,
        by: str,
        question: str | None = None,
        answer: str | None = None,
    ) -> str:
        """Approve a draft, perhaps in other words, or reject it.

        Returns:
            What to tell who decided.

        Raises:
            WorkersError: The queue cannot be reached; nothing is decided then.
        """
        store = self._store.open()
        known = next(
            (each for each in await asyncio.to_thread(store.drafts, tenant, None) if each.draft_id == draft_id), None
        )
        if known is None:
            return wording.GONE
        words = (question or known.question, answer or known.answer)
        if approved:
            await self.teach(tenant, draft_id, words[0], words[1], by)
        elif known.state == "approved":
            await self.unteach(tenant, draft_id)
        if known.state == "approved" and (not approved or words != (known.question, known.answer)):
            await self._withdraw(tenant, draft_id)
        state = "approved" if approved else "rejected"
        await asyncio.to_thread(store.decide, tenant, draft_id, state, by, words[0], words[1])
        return "Approved: it is known from now on." if approved else "Rejected."

    async def forget_user(self, tenant: str | None, user: str | None, only: Only = None) -> int:
        """Delete what somebody has asked people, what was drafted of it, and what was learnt.

        Args:
            tenant: Where; None for everywhere.
            user: Who; None for everybody.
            only: In which conversations; None for all.

        Returns:
            How many hand-overs that were.
        """
        if not self._store.is_there:
            return 0
        store = self._store.open()
        learnt = await asyncio.to_thread(store.learnt_from, tenant, user, only)
        for owner, draft_id in learnt:  # first what needs no queue
            await self._withdraw(owner, draft_id)
        # Then what the record is needed to find: if this fails, asking again finds it again.
        # In the queue it outlives everything, so that nobody waits for a worker that is not there.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FORGOTTEN_S):
                await asyncio.gather(*(self.unteach(owner, draft_id) for owner, draft_id in learnt))
        return await asyncio.to_thread(store.forget_user, tenant, user, only)

    async def kept_about(self, tenant: str | None, user: str) -> list[dict[str, Any]]:
        """What somebody has asked people and documents, as plain data."""
        if not self._store.is_there:
            return []
        return await asyncio.to_thread(self._store.open().kept_about, tenant, user)

    async def _withdraw(self, tenant: str, draft_id: str) -> None:
        """What a chat model has learnt of a draft it must not say any more."""
        await asyncio.to_thread(tuning.mark_stale, self._store.settings, tenant, [tuning.draft_source(draft_id)])

    async def teach(self, tenant: str, pair_id: str, question: str, answer: str, by: str) -> None:
        """Have a pair known; returns when the next question finds it."""
        body = AnswerBody(
            kind="answer", task="learn", question=question, answer=answer, approved_by=by, pair_id=pair_id
        )
        await self._run(tenant, body)

    async def unteach(self, tenant: str, pair_id: str) -> None:
        """Have a pair forgotten."""
        await self._run(tenant, AnswerBody(kind="answer", task="unlearn", pair_id=pair_id))

    async def _run(self, tenant: str, body: AnswerBody) -> None:
        request = Request(
            platform="support", tenant=tenant, channel="learning", user="moderators",
            idempotency_key=f"learn-{secrets.token_hex(6)}", reply=_NOBODY, body=body, cost_gpu_s=0.05,
            created_at_s=time.time(),
        )  # fmt: skip
        submitted = await self._client.submit(request)
        async with asyncio.timeout(_LONGEST_S):
            async for update in self._client.follow(submitted.job_id):
                if isinstance(update, Ended) and update.event.type != "finished":
                    failure = update.event.failure
                    raise WorkersError(failure.message if failure else "It could not be learnt.")
