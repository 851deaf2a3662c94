"""The one road of every front-end: rules, admission, enqueue, follow, record.

A front-end makes a ``Prompt`` of what its platform sent, hands it to ``ask``, and shows what ``follow`` tells until the
terminal event. ``follow`` can be called again for the same job by any process at any time, for example after a restart:
it tells the whole answer again, and the conversation records it once.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from bots.conversation import CHARS_PER_TOKEN, Conversations
from workers.client import CancelOutcome, Client, Ended, Restarted, Submitted, TextDelta, Update
from workers.contract import ChatBody, ChatMessage, ChatOptions, Event, ReplyTo, Request, tenant_of
from workers.errors import ContractError, RefusedError

#: Handle field that says which conversation an answer belongs to.
CONVERSATION = "conversation"

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
    """

    rule: str
    message: str


Rule = Callable[[Prompt], Refusal | None]


class ChatService:
    """What front-ends call.

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
        for rule in self._rules:
            refusal = rule(prompt)
            if refusal:
                raise RefusedError(refusal.rule, math.inf, refusal.message)
        place = (prompt.tenant, prompt.conversation)
        job_id = prompt.job_id
        try:
            request = self._request(prompt, await self._conversations.messages(*place, job_id, prompt.text))
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
            raise ContractError(f"The prompt's {fault['loc'][-1]} is not accepted: {fault['msg']}.") from None
        # Before it is enqueued: an answer may come at once, and it is recorded beside its question or not at all.
        await self._conversations.ask(*place, job_id, prompt.text)
        try:
            return await self._client.submit(request)
        except RefusedError:
            await self._conversations.drop(*place, job_id)
            raise

    async def follow(self, job_id: str) -> AsyncIterator[Update]:
        """Tell a job's position, text and end, and record the answer in its conversation before telling the end.

        Raises:
            JobNotFoundError: No such job, or its answer has expired.
            RedisUnavailableError: Redis stayed away.
        """
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
        return await self._client.cancel(job_id, user, moderator)

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

    def _request(self, prompt: Prompt, messages: tuple[ChatMessage, ...]) -> Request:
        handle = {**prompt.reply.handle, CONVERSATION: prompt.conversation}
        return Request(
            platform=prompt.platform,
            tenant=prompt.tenant,
            channel=prompt.channel,
            user=prompt.user,
            idempotency_key=prompt.key,
            reply=prompt.reply.model_copy(update={"handle": handle}),
            body=ChatBody(messages=messages, options=prompt.options),
            cost_gpu_s=estimated_cost_gpu_s(messages, prompt.options.max_new_tokens),
            timeout_s=self._timeout_s,
            created_at_s=time.time(),
        )


#: Of one share of a running batch, on the embedded model's usual machine. Only their ratio matters for fairness: the
#: worker replaces every estimate by what it measured.
_PREFILL_GPU_S_PER_TOKEN = 0.001
_DECODE_GPU_S_PER_TOKEN = 0.01
_LEAST_COST_GPU_S = 0.01
_LARGEST_COST_GPU_S = 86_400.0


def estimated_cost_gpu_s(messages: Sequence[ChatMessage], max_new_tokens: int) -> float:
    """What a request will take if its answer is half as long as it may be.

    Args:
        messages: What the model is shown.
        max_new_tokens: Longest answer.

    Returns:
        GPU-seconds, above 0.
    """
    prompt_tokens = sum(len(message.content) for message in messages) / CHARS_PER_TOKEN
    cost_gpu_s = prompt_tokens * _PREFILL_GPU_S_PER_TOKEN + max_new_tokens / 2 * _DECODE_GPU_S_PER_TOKEN
    return min(max(cost_gpu_s, _LEAST_COST_GPU_S), _LARGEST_COST_GPU_S)
