"""What is kept about a person: exported and deleted on that person's wish, whatever front-end it came through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from bots.conversation import Conversations
from bots.first_contact import FirstContacts
from bots.handover.learning import Learning
from bots.moderation import LateRecord
from bots.offers import Offers
from bots.request_records import RequestRecords
from bots.usage import UsageRecords
from workers.client import Client

#: Most image prompts that an export lists: all that are indexed.
_RECORDS = 50


@dataclass(frozen=True, slots=True)
class Deleted:
    """What has been deleted.

    Attributes:
        turns: Questions, with their answers.
        records: Image prompts.
    """

    turns: int
    records: int


class Privacy:
    """Exports and deletes.

    Args:
        conversations: Histories.
        records: Image prompts.
        usage: Sums.
        client: The queue, where finished pictures are.
        decisions: What moderation decided; None where it keeps nothing.
        learning: What was asked of people, and drafts made of it; None where there is no hand-over.
    """

    def __init__(
        self,
        conversations: Conversations,
        records: RequestRecords,
        usage: UsageRecords,
        client: Client,
        decisions: LateRecord | None = None,
        learning: Learning | None = None,
    ) -> None:
        self._client = client
        self._decisions = decisions
        self._learning = learning
        self._conversations = conversations
        self._records = records
        self._usage = usage

    async def export(self, platform: str, tenant: str | None, user: str) -> dict[str, Any]:
        """Everything that is kept about a person in a tenant, or with None in all of them, as plain data."""
        author = f"{platform}:{user}"
        conversations = []
        for owner, name in await self._conversations.of_author(author):
            if tenant in (None, owner):
                turns = await self._conversations.turns_of(owner, name, author)
                said = [{"question": turn.question, "answer": turn.answer} for turn in turns]
                conversations.append({"conversation": name, "turns": said})
        recent = await self._records.recent(platform, user, _RECORDS)
        pictures = [
            {
                "id": each.job_id,
                "prompt": each.text,
                "negative": each.negative_text,
                "options": each.options.model_dump(),
            }
            for each in recent
            if tenant in (None, each.tenant)
        ]
        used = asdict(await self._usage.lately(platform, user))
        known = {"conversations": conversations, "pictures": pictures, "usage_of_30_days": used}
        asked = await self._learning.kept_about(tenant, user) if self._learning is not None else []
        return {**known, "hand_overs_and_questions": asked} if asked else known

    async def forget_hand_overs(self, tenant: str, user: str | None, only: Callable[[str], bool]) -> int:
        """Delete what somebody, or with None anybody, has asked people and documents in some conversations.

        Args:
            tenant: Where.
            user: Who.
            only: Tells whether a conversation is meant.

        Returns:
            How many hand-overs that were.
        """
        return await self._learning.forget_user(tenant, user, only) if self._learning is not None else 0

    async def delete(self, platform: str, tenant: str | None, user: str) -> Deleted:
        """Delete everything that is kept about a person in a tenant, or with None in all of them."""
        author, turns, elsewhere = f"{platform}:{user}", 0, False
        for owner, name in await self._conversations.of_author(author):
            if tenant in (None, owner):
                turns += await self._conversations.forget_author(owner, name, author)
            else:
                elsewhere = True
        if not elsewhere:
            await self._conversations.forget_index(author)
        for prompt in await self._records.recent(platform, user, _RECORDS):
            event = await self._client.ended(prompt.job_id)
            for image in event.images if event else ():
                await self._client.delete_artifact(image.artifact_id, tenant=prompt.tenant, user=user)
        records = await self._records.forget_user(platform, user)
        await self._usage.forget(platform, user)
        await Offers(self._client.connection).forget(user)
        await FirstContacts(self._client.connection).forget(platform, user)
        await self._client.forget_usage(user, platform, tenant)
        if self._decisions is not None:
            await asyncio.to_thread(self._decisions.forget_user, tenant, user)
        if self._learning is not None:
            await self._learning.forget_user(tenant, user)
        return Deleted(turns, records)
