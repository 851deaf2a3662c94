"""The one road of every front-end: rules, admission, enqueue, follow, record.

A front-end makes a ``Prompt`` or an ``ImagePrompt`` of what its platform sent, hands it to ``ask`` or ``imagine``, and
shows what ``follow`` tells until the terminal event. ``follow`` can be called again for the same job by any process at
any time, for example after a restart: it tells the whole answer again, and the conversation records it once.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from bots import enhancement
from bots.conversation import Conversations
from bots.cost import ANSWER_COST_GPU_S, chat_cost_gpu_s, longest_answer_tokens, smaller_pictures
from bots.image_prompt import ImagePrompt, faults_in_words, image_request
from bots.refusals import StoppedError, TooCostlyError
from generation.moderation.policy import EffectivePolicy
from workers.client import CancelOutcome, Client, Ended, Queued, Restarted, Submitted, TextDelta
from workers.client import Update as QueueUpdate
from workers.contract import (
    AnswerBody,
    ChatBody,
    ChatMessage,
    ChatOptions,
    Event,
    Failure,
    ImageBody,
    Quota,
    ReplyTo,
    Request,
    tenant_of,
)
from workers.errors import JobNotFoundError, RefusedError

#: Handle field that says which conversation an answer belongs to.
CONVERSATION = "conversation"

#: Earlier questions that a question may lean on ("and in China?").
_ASKED_BEFORE = 6

_log = logging.getLogger("palaver.service")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What somebody wrote, wherever that was.

    Attributes:
        platform: Which front-end, such as ``terminal``.
        tenant: Guild or workspace, prefixed by the platform.
        channel: Channel, direct message or terminal.
        user: Who wrote.
        conversation: Name of the conversation that it continues.
        key: The platform's own id of the event, so that a repeated event is no second prompt.
        text: What was written.
        reply: Where the answer goes.
        options: How the answer is sampled.
        persona: The system text of a conversation that has none of its own; None for the configured one.
        policy: How the tenant wants it moderated, in that channel and for that user; None for the operator's default.
        model: Which chat model answers; None for the operator's usual one.
        attachments: Names of the files that came with it, which the tenant's policy may not accept.
        quota: Limits and budgets that hold for its author there; None for the operator's general ones.
        kind: ``chat`` lets the model answer, ``answer`` quotes what the tenant knows.
    """

    platform: str
    tenant: str
    channel: str
    user: str
    conversation: str
    key: str
    text: str
    reply: ReplyTo
    options: ChatOptions = field(default_factory=ChatOptions)
    persona: str | None = None
    policy: EffectivePolicy | None = None
    model: str | None = None
    attachments: tuple[str, ...] = ()
    quota: Quota | None = None
    kind: Literal["chat", "answer"] = "chat"

    @property
    def job_id(self) -> str:
        """The id of the job that answers it."""
        return f"{self.tenant}__{self.key}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule's no.

    Attributes:
        rule: Stable name of the rule.
        message: For the user: what is not accepted and what would be.
        appealable: Whether the tenant's moderators can be asked to look at it.
    """

    rule: str
    message: str
    appealable: bool = False


AnyPrompt = Prompt | ImagePrompt
#: Says no, changes what was written (to mask a secret), or lets it be.
Rule = Callable[[AnyPrompt], Refusal | AnyPrompt | None]
_P = TypeVar("_P", Prompt, ImagePrompt)


@dataclass(frozen=True, slots=True)
class Enhanced:
    """The chat model has added details to a short image prompt.

    Args:
        text: What is drawn.
    """

    text: str


Update = QueueUpdate | Enhanced


class ChatService:
    """What front-ends call, for answers and for pictures.

    Args:
        client: The queue.
        conversations: The histories.
        rules: Asked in turn before anything is charged or stored; the first refusal counts.
        timeout_s: Longest run of one attempt.
    """

    def __init__(
        self, client: Client, conversations: Conversations, rules: Sequence[Rule] = (), timeout_s: float = 300.0
    ) -> None:
        self._client = client
        self._conversations = conversations
        self._rules = tuple(rules)
        self._timeout_s = timeout_s

    async def ask(self, prompt: Prompt) -> Submitted:
        """Take a prompt on its way to a worker; the same key again finds the job that exists.

        Returns:
            The job to follow.

        Raises:
            RefusedError: A rule or a limit says no; it carries the reason and when to come back.
            ContractError: The prompt cannot be carried: it is far too long, or a name has forbidden characters.
            RedisUnavailableError: Redis is away.
        """
        prompt = self._apply_rules(prompt)
        place = (prompt.tenant, prompt.conversation)
        job_id = prompt.job_id
        with faults_in_words():
            messages = await self._conversations.messages(*place, job_id, prompt.text, prompt.persona)
            request = self._request(prompt, _body(prompt, messages))
        # Before it is enqueued: an answer may come at once, and it is recorded beside its question or not at all.
        await self._conversations.ask(*place, job_id, prompt.text, f"{prompt.platform}:{prompt.user}")
        try:
            return await self._client.submit(request)
        except RefusedError as error:
            await self._conversations.drop(*place, job_id)
            raise _with_offer(error, prompt, request.body) from None

    async def imagine(self, prompt: ImagePrompt) -> Submitted:
        """Take an image prompt on its way to a worker; the same key again finds the job that exists.

        With ``enhance`` the chat model is asked first, by a job of its own; whoever follows then sees to the pictures,
        so nothing is to be waited for here.

        Returns:
            The job to follow.

        Raises:
            RefusedError: A rule or a limit says no; it carries the reason and when to come back.
            ContractError: The prompt cannot be carried: it is far too long, or a name has forbidden characters.
            RedisUnavailableError: Redis is away.
        """
        prompt = self._apply_rules(prompt)
        request = image_request(prompt, self._timeout_s)
        try:
            if not enhancement.wanted(prompt) or await self._client.known(prompt.job_id):
                return await self._client.submit(request)
            submitted = await self._client.submit(enhancement.enhancement_request(prompt, self._timeout_s))
        except RefusedError as error:
            raise _with_offer(error, prompt, request.body) from None
        return Submitted(prompt.job_id, submitted.duplicate)

    async def follow(self, job_id: str) -> AsyncIterator[Update]:
        """Tell a job's position, text or pictures, and end; an answer is recorded in its conversation before its end.

        An image prompt that is to be enhanced is first followed through that: its place in the chat queue, then
        ``Enhanced``, then the pictures. Should enhancing fail, the pictures are drawn from what was written.

        Raises:
            JobNotFoundError: No such job, or its answer has expired.
            RedisUnavailableError: Redis stayed away.
        """
        async for update in self._follow_enhancement(job_id):
            yield update
            if isinstance(update, Ended):
                return
        text: list[str] = []
        async for update in self._client.follow(job_id):
            match update:
                case TextDelta(piece):
                    text.append(piece)
                case Restarted():
                    text.clear()
                case Ended(event):
                    await self._record(event, "".join(text))
            yield update

    async def stop(self, job_id: str, user: str, moderator: bool = False) -> CancelOutcome:
        """Stop a job, queued or running; arguments and errors are those of ``Client.cancel``."""
        try:
            return await self._client.cancel(job_id, user, moderator)
        except JobNotFoundError:
            return await self._client.cancel(enhancement.enhancement_id(job_id), user, moderator)

    async def _follow_enhancement(self, job_id: str) -> AsyncIterator[Update]:
        """Follow the chat job that adds details to an image prompt, if there is one, and then submit the pictures.

        Yields:
            The place in the queue, and what will be drawn; ``Ended`` only if there will be no pictures.
        """
        enhancing_id = enhancement.enhancement_id(job_id)
        if not await self._client.known(enhancing_id):
            return
        text: list[str] = []
        try:
            async for update in self._client.follow(enhancing_id):
                match update:
                    case TextDelta(piece):
                        text.append(piece)
                    case Restarted():
                        text.clear()
                    case Queued():
                        yield update
                    case Ended(event):
                        yield await self._draw(event, "".join(text))
        except JobNotFoundError:  # the chat model's text has expired; the pictures may still be there
            if not await self._client.known(job_id):
                raise

    async def _draw(self, event: Event, answer: str) -> Update:
        """Submit the pictures of a prompt whose enhancement has ended, once however often this is called."""
        prompt = enhancement.pending_prompt(event)
        if event.type == "cancelled":
            return Ended(event.model_copy(update={"job_id": prompt.job_id, "reply": prompt.reply}))
        if event.type == "finished":
            with suppress(RefusedError):
                prompt = self._apply_rules(enhancement.enhanced_prompt(event, answer))
        try:
            await self._client.submit(image_request(prompt, self._timeout_s))
        except RefusedError as error:
            retry_after_s = error.retry_after_s if math.isfinite(error.retry_after_s) else None
            failure = Failure(code=error.code, message=str(error), retry_after_s=retry_after_s)
            reply, now_s = prompt.reply, time.time()
            return Ended(Event(type="refused", job_id=prompt.job_id, reply=reply, at_s=now_s, failure=failure))
        return Enhanced(prompt.text)

    def _apply_rules(self, prompt: _P) -> _P:
        """The prompt as the rules leave it; halves of surrogate pairs, which no encoding carries, are replaced."""
        prompt = replace(prompt, text=prompt.text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
        for rule in self._rules:
            said = rule(prompt)
            if isinstance(said, Refusal) and said.appealable:
                raise StoppedError(said.rule, said.message)
            if isinstance(said, Refusal):
                raise RefusedError(said.rule, math.inf, said.message)
            if isinstance(said, type(prompt)):
                prompt = said
        return prompt

    async def _record(self, event: Event, text: str) -> None:
        name = event.reply.handle.get(CONVERSATION)
        if name is None:
            return
        place = (tenant_of(event.job_id), name)
        # What was stopped half-way stays in the conversation as far as it was seen.
        if text and event.type in ("finished", "cancelled"):
            await self._conversations.answer(*place, event.job_id, text)
        else:
            await self._conversations.drop(*place, event.job_id)
        _log.info("job %s: %s", event.job_id, event.type)

    def _request(self, prompt: Prompt, body: ChatBody | AnswerBody) -> Request:
        handle = {**prompt.reply.handle, CONVERSATION: prompt.conversation}
        return Request(
            platform=prompt.platform,
            tenant=prompt.tenant,
            channel=prompt.channel,
            user=prompt.user,
            idempotency_key=prompt.key,
            reply=prompt.reply.model_copy(update={"handle": handle}),
            body=body,
            cost_gpu_s=ANSWER_COST_GPU_S
            if isinstance(body, AnswerBody)
            else chat_cost_gpu_s(body.messages, body.options.max_new_tokens),
            timeout_s=self._timeout_s,
            created_at_s=time.time(),
            policy=prompt.policy,
            model=prompt.model,
            quota=prompt.quota,
        )


def _body(prompt: Prompt, messages: tuple[ChatMessage, ...]) -> ChatBody | AnswerBody:
    """What the worker gets: the conversation, or the question with those before it, which it may lean on."""
    if prompt.kind == "chat":
        return ChatBody(messages=messages, options=prompt.options)
    asked = [message.content for message in messages if message.role == "user"]
    return AnswerBody(kind="answer", question=asked[-1], conversation=tuple(asked[:-1][-_ASKED_BEFORE:]))


def _with_offer(error: RefusedError, prompt: AnyPrompt, asked: ChatBody | ImageBody | AnswerBody) -> RefusedError:
    """A budget's no, with what would fit into it where something does; any other no as it is."""
    if error.left_gpu_s is None or isinstance(asked, AnswerBody):
        return error
    if isinstance(prompt, ImagePrompt):
        options = smaller_pictures(asked, error.left_gpu_s) if isinstance(asked, ImageBody) else None
        if options is None:
            return error
        told = f"{options.n} picture{'s' if options.n > 1 else ''}"
        told += f" in {options.num_inference_steps} steps" if options.num_inference_steps else ""
        return TooCostlyError(error, replace(prompt, options=options, enhance=False), told)
    if isinstance(asked, ImageBody):
        return error
    tokens = longest_answer_tokens(asked.messages, prompt.options.max_new_tokens, error.left_gpu_s)
    if tokens is None:
        return error
    shorter = prompt.options.model_copy(update={"max_new_tokens": tokens})
    return TooCostlyError(error, replace(prompt, options=shorter), f"an answer of at most {tokens} tokens")
