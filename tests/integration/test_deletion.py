"""What is kept about a person goes when that person wants it: history, usage, offers, audit text, appeals, pictures."""

from __future__ import annotations

import asyncio
import io
import time
from dataclasses import replace
from pathlib import Path

from PIL import Image
from redis.asyncio import Redis

from bots.conversation import Conversations
from bots.first_contact import FirstContacts, is_first
from bots.image_prompt import ImagePrompt
from bots.moderation import LateRecord, rules_for
from bots.offers import Offers
from bots.privacy import Privacy
from bots.refusals import TooCostlyError
from bots.request_records import RequestRecords
from bots.service import Prompt
from bots.settings import ConversationSettings, Settings
from bots.usage import UsageRecords
from generation.moderation.policy import Policy, WordList
from generation.moderation.record import Record
from tests.queue_ends import client_of
from tests.valkey import ValkeyProcess
from workers import keys
from workers.contract import ArtifactRef, Event, ReplyTo, encode
from workers.errors import RefusedError
from workers.usage import Answer, periods, record

KEPT = Policy(lists=(WordList(words=("forbidden",)),), keep_texts=True).at()
REPLY = ReplyTo(front_end="t")


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(out, "PNG")
    return out.getvalue()


def prompt(user: str) -> Prompt:
    return Prompt("t", "t-1", "c", user, "talk", f"k-{user}", "a forbidden secret", REPLY, policy=KEPT)


async def left(redis: Redis, word: str) -> list[str]:
    """Keys that name somebody in their name or their value."""
    found = []
    async for name in redis.scan_iter(f"{keys.PREFIX}*"):
        kind = (await redis.type(name)).decode()
        value = await redis.hgetall(name) if kind == "hash" else await redis.get(name) if kind == "string" else ""
        if word in name.decode() + str(value):
            found.append(name.decode())
    return found


async def test_deletion_reaches_everything_and_nobody_else(server: ValkeyProcess, tmp_path: Path) -> None:
    decisions = LateRecord(Settings(data_dir=tmp_path))
    async with client_of(server.url) as client:
        redis = client.connection
        conversations = Conversations(redis, ConversationSettings())
        records, usage = RequestRecords(redis), UsageRecords(redis)
        privacy = Privacy(conversations, records, usage, client, decisions)
        stored = {}
        for user in ("ann-0000001", "bob-0000002"):
            await conversations.ask("t-1", "talk", f"t-1__{user}", "my question", f"t:{user}")
            image = ImagePrompt("t", "t-1", "c", user, f"i-{user}", "a secret fox", REPLY)
            await records.keep(image)
            assert is_first((await FirstContacts(redis).noted(image)).reply)
            stored[user] = await client.put_artifact(picture(), tenant="t-1", user=user)
            ref = ArtifactRef(
                artifact_id=stored[user], media_type="image/png", width_px=32, height_px=32, size_bytes=99, seed=1
            )
            done = Event(type="finished", job_id=image.job_id, reply=REPLY, at_s=1, images=(ref,))
            await redis.hset(keys.live(image.job_id), "final", encode(done))
            await Offers(redis).keep(TooCostlyError(RefusedError("user budget", 1.0, "No.", 1.0), prompt(user), "less"))
            rules_for(KEPT, decisions.decided)(prompt(user))
            with_account = [Answer(f"t-1__{user}", "t-1", user, 2.5)]
            await asyncio.to_thread(_account, server.url, with_account)
        book = decisions.open()
        assert isinstance(book, Record)
        book.flush()
        for user in stored:
            assert book.appeal(f"t-1__k-{user}", "t-1", user, "t", user).appeal.text == "a forbidden secret"

        deleted = await privacy.delete("t", None, "ann-0000001")

        assert (deleted.turns, deleted.records) == (1, 1)
        assert await client.delete_artifact(stored["ann-0000001"], tenant="t-1", user="ann-0000001") is False
        day, month = periods(time.time())
        accounts = {keys.usage("t-1", "ann-0000001", period) for period in (day, month)}
        live = keys.live("t-1__i-ann-0000001")  # the end of a job, which expires with its result; its picture is gone
        assert set(await left(redis, "ann-0000001")) <= {*accounts, live, keys.conversation("t-1", "talk")}
        for account in accounts:
            assert [name for name in await redis.hkeys(account) if b":" in name] == [], "what was used is not told"
        assert [appeal.job_id for appeal in book.appeals()] == ["t-1__k-bob-0000002"]
        kept = await privacy.export("t", None, "bob-0000002")
        assert len(kept["conversations"]) == len(kept["pictures"]) == 1
        assert not is_first((await FirstContacts(redis).noted(replace(image, key="another"))).reply)
        assert await client.artifact(stored["bob-0000002"]) == picture()
        assert book.appeals()[0].text == "a forbidden secret"


def _account(url: str, answers: list[Answer]) -> None:
    import redis

    with redis.Redis.from_url(url) as client, client.pipeline() as pipeline:
        record(pipeline, "chat", answers, time.time())
        pipeline.execute()
