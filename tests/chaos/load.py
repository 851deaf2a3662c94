"""Who asks: people of many tenants in two chat platforms, and callers of the client library; what they get to see."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import redis

from tests import embedded_model
from tests.chaos import models
from tests.chaos.stage import ATTEMPTS, TEAMS, MessagesByChannel, Stage
from tests.engines import answer
from tests.fake_guild.world import APPLICATION
from tests.fake_workspace.content import Message as SlackMessage
from tests.jobs import chat_request
from tests.slack_answers import is_complete
from workers import keys
from workers.artifacts import media_type_of
from workers.client import Client, Ended, Restarted, TextDelta
from workers.contract import Event, ReplyTo, Request
from workers.errors import JobNotFoundError, RedisUnavailableError, RefusedError
from workers.redis_connection import connect, connect_async
from workers.settings import BudgetSettings, LimitSettings, Rate, RedisSettings, WorkerSettings

Road = Literal["library", "slack", "guild"]
#: Whose events are whose.
FRONT_ENDS: dict[Road, str] = {"library": "chaos", "slack": "slack", "guild": f"discord-{APPLICATION}"}
#: Most prompts of each road that wait for their answers at once.
AT_ONCE: dict[Road, int] = {"library": 40, "slack": 20, "guild": 20}
LIBRARY_TENANTS = 24
_GUILD_USERS = 6_000_000_000_000_000_000
_RATE = Rate(per_minute=1e5, burst=100_000)
_LIMITS = LimitSettings(tenant=_RATE, channel=_RATE, user=_RATE, tenant_in_flight=1000, user_in_flight=1000)
_BUDGETS = BudgetSettings(tenant_day_gpu_s=1e8, user_month_gpu_s=1e8)
_POLL_S = 0.1
#: Of the library's prompts, half of all, one in so many is a real model's; of those, one in so many a picture.
_MODEL_EVERY, _PICTURE_EVERY = 20, 6
#: Who is not heard for so long gives up.
_PATIENCE_S = 15.0


@dataclass(slots=True)
class Prompt:
    """One prompt and what came of it.

    Attributes:
        kind: Of its job: words of the deterministic engine, a real model's answer, or a picture.
        question: What a real model is asked.
        expected: What it answers when it is alone.
        accepted: Its job was seen in the queue, or the library said that it is there.
        promised: A front-end was seen to have promised its answer.
        shown: Every final message that its author can see now.
        unfinished: How many messages are there that never became final.
    """

    number: int
    road: Road
    tenant: str
    text: str
    tokens: int
    poison: bool
    job_id: str = ""
    asked_s: float = 0.0
    accepted: bool = False
    promised: bool = False
    done: bool = False
    shown: list[str] = field(default_factory=list)
    unfinished: int = 0
    channel: int = 0
    kind: Literal["words", "model", "picture"] = "words"
    question: str = ""
    expected: str = ""

    @property
    def right(self) -> str:
        return self.expected or answer(self.text, self.tokens).strip()


def with_models(asked: list[Prompt], answers: Mapping[str, str]) -> list[Prompt]:
    """Have some of the library's prompts be answered by real models.

    Args:
        asked: All prompts of a run.
        answers: What the chat model says to each of its questions when it is alone.
    """
    questions = list(answers)
    mine = [each for each in asked if each.road == "library" and not each.poison]
    for at, prompt in enumerate(mine[::_MODEL_EVERY], 1):
        prompt.kind = "picture" if at % _PICTURE_EVERY == 0 else "model"
        prompt.question = questions[at % len(questions)]
        prompt.expected = "1 picture" if prompt.kind == "picture" else answers[prompt.question]
    return asked


def prompts(seed: int, count: int) -> list[Prompt]:
    """Who asks what: a function of the seed."""
    dice = random.Random(f"load {seed}")
    made = []
    for number in range(count):
        road: Road = dice.choices(("library", "slack", "guild"), (0.5, 0.25, 0.25))[0]
        tokens = dice.choice((3, 10, 30, 60, 100))
        poison = number % 120 == 60
        orders: dict[str, object] = {"tokens": tokens, "n": number, "seed": seed}
        if poison:
            orders["kill"] = dice.randrange(tokens)
        tenant = {
            "library": f"lib{number % LIBRARY_TENANTS}",
            "slack": f"slack-T{number % TEAMS + 1}",
            "guild": f"discord-u{_GUILD_USERS + number}",
        }[road]
        made.append(Prompt(number, road, tenant, json.dumps(orders), tokens, poison))
    return made


class Load:
    """Asks prompts and watches their answers. Use as an async context manager.

    Args:
        stage: Where.
        asked: All prompts of the run; ``release`` lets them go in order.

    Attributes:
        looking: Held while the queue is looked at: what is seen between a server's last write to disk and its death
            may be gone afterwards, and counts for nothing.
    """

    def __init__(self, stage: Stage, asked: list[Prompt]) -> None:
        self._stage = stage
        self.prompts = asked
        self._released = 0
        self.looking = asyncio.Lock()
        self._gates = {road: asyncio.Semaphore(count) for road, count in AT_ONCE.items()}
        self._tasks: list[asyncio.Task[None]] = []
        self._slack_seen = 0
        self._slack: dict[str, list[SlackMessage]] = {}

    async def __aenter__(self) -> Load:
        settings = RedisSettings.model_validate({"url": self._stage.proxy.url})
        worker = WorkerSettings(max_attempts=ATTEMPTS)
        nowhere = Path("unused")
        self._client = Client(
            connect_async(settings, nowhere), connect(settings, nowhere), _LIMITS, worker, 60.0, budgets=_BUDGETS
        )
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (self._watcher, *self._tasks):
            task.cancel()
        await asyncio.gather(self._watcher, *self._tasks, return_exceptions=True)
        await self._client.close()

    def release(self, until: int) -> None:
        """Let the prompts up to this number go."""
        for prompt in self.prompts[self._released : until]:
            self._tasks.append(asyncio.create_task(self._ask(prompt), name=f"prompt {prompt.number}"))
        self._released = max(self._released, until)

    @property
    def open(self) -> list[Prompt]:
        """Prompts that are accepted, or on their way, and not answered."""
        return [each for each in self.prompts[: self._released] if not each.done]

    async def _ask(self, prompt: Prompt) -> None:
        async with self._gates[prompt.road]:
            prompt.asked_s = time.monotonic()
            ask = {"library": self._by_library, "slack": self._by_slack, "guild": self._by_guild}[prompt.road]
            try:
                await ask(prompt)
            except Exception as error:  # noqa: BLE001 - whatever it is, the verdict says it
                prompt.shown.append(f"this harness failed: {error!r}")
                prompt.done = True

    # The library

    async def _by_library(self, prompt: Prompt) -> None:
        request: Request = chat_request(
            f"k{prompt.number}", prompt.tenant, prompt.text, user=f"u{prompt.number % 97}", cost_gpu_s=0.5,
            reply=ReplyTo(front_end=FRONT_ENDS["library"]), timeout_s=120.0,
        )  # fmt: skip
        if prompt.kind == "model":
            body = models.chat_body(prompt.question)
            request = request.model_copy(update={"body": body, "model": embedded_model.NAME})
        elif prompt.kind == "picture":
            request = request.model_copy(update={"body": models.image_body(prompt.number)})
        prompt.job_id = request.job_id
        while not prompt.accepted:
            try:
                await self._client.submit(request)
                prompt.accepted = True
            except RedisUnavailableError:
                await asyncio.sleep(0.3)
            except RefusedError:
                if prompt.kind != "model":
                    raise
                await asyncio.sleep(1.0)  # the only worker of that model is dead at the moment
        while not prompt.done:
            await self._follow(prompt)

    async def _follow(self, prompt: Prompt) -> None:
        text = ""
        try:
            async for update in self._client.follow(prompt.job_id):
                match update:
                    case TextDelta(piece):
                        text += piece
                    case Restarted():
                        text = ""
                    case Ended(event):
                        failure = event.failure.message if event.failure else event.type
                        if event.images:
                            text = await self._pictures(event)
                        prompt.shown.append(text.strip() if event.type == "finished" else failure)
                        prompt.done = True
        except RedisUnavailableError:
            await asyncio.sleep(0.3)
        except JobNotFoundError:
            prompt.shown.append("the job does not exist")
            prompt.done = True

    async def _pictures(self, event: Event) -> str:
        """What came, if it can be had and is what it is said to be."""
        for image in event.images:
            if media_type_of(await self._client.artifact(image.artifact_id)) != image.media_type:
                return "a broken picture"
        return f"{len(event.images)} picture"

    # The platforms

    async def _by_slack(self, prompt: Prompt) -> None:
        user, channel = f"U{prompt.number}", f"D{prompt.number}"
        ts = await self._stage.workspace.say(user, channel, prompt.text, team=prompt.tenant.removeprefix("slack-"))
        prompt.job_id = f"{prompt.tenant}__{channel}-{ts.replace('.', '-')}"
        await self._until_done(prompt)

    async def _by_guild(self, prompt: Prompt) -> None:
        user = _GUILD_USERS + prompt.number
        prompt.channel = self._stage.guild.direct(user)
        message = await self._stage.guild.say(prompt.text, user=user, channel=prompt.channel)
        prompt.job_id = f"{prompt.tenant}__m{message.id}"
        await self._until_done(prompt)

    async def _until_done(self, prompt: Prompt) -> None:
        """Somebody whose prompt nobody heard gives up after a while, as people do."""
        while not prompt.done:
            self.look(prompt)
            heard = prompt.accepted or prompt.promised or prompt.shown or prompt.unfinished
            given_up = not heard and time.monotonic() - prompt.asked_s > _PATIENCE_S
            prompt.done = bool(given_up or (prompt.shown and not prompt.unfinished))
            await asyncio.sleep(_POLL_S)

    def look(self, prompt: Prompt) -> None:
        """See what stands there for its author now."""
        if prompt.road == "slack":
            found = [each for each in self._slack_messages(f"D{prompt.number}") if not each.deleted]
            prompt.shown = [each.body.strip() for each in found if is_complete(each)]
            prompt.unfinished = len(found) - len(prompt.shown)
        elif prompt.road == "guild":
            messages = self._stage.guild.world.messages
            assert isinstance(messages, MessagesByChannel)
            own = messages.by_channel.get(prompt.channel, {}).values()
            bots = [each for each in own if each.author == APPLICATION and each.id in messages]
            prompt.shown = [each.content.strip() for each in bots if not each.buttons]
            prompt.unfinished = len(bots) - len(prompt.shown)

    def _slack_messages(self, channel: str) -> list[SlackMessage]:
        messages = self._stage.workspace.messages
        for message in messages[self._slack_seen :]:
            if message.bot_id:
                self._slack.setdefault(message.channel, []).append(message)
        self._slack_seen = len(messages)
        return self._slack.get(channel, [])

    # What is accepted

    async def _watch(self) -> None:
        while True:
            async with self.looking:
                with contextlib.suppress(redis.RedisError, OSError):
                    await asyncio.to_thread(self.look_at_queue)
            await asyncio.sleep(0.25)

    def look_at_queue(self) -> None:
        """See which prompts are in the queue. What was seen before a kill of the server must be on its disk then."""
        waiting = [each for each in self.prompts[: self._released] if each.job_id and not each.accepted]
        if not waiting or not self._stage.server_wanted:
            return
        with (
            redis.Redis(unix_socket_path=str(self._stage.server.socket), socket_timeout=2.0) as client,
            client.pipeline(transaction=False) as pipeline,
        ):
            for each in waiting:
                front_end = FRONT_ENDS[each.road]
                pipeline.exists(f"rq:job:{each.job_id}", keys.live(each.job_id))
                pipeline.exists(keys.promise(front_end, each.job_id))
            found = pipeline.execute()
        for prompt, queued, promised in zip(waiting, found[::2], found[1::2], strict=True):
            prompt.accepted = prompt.accepted or bool(queued)
            prompt.promised = prompt.promised or bool(promised)
