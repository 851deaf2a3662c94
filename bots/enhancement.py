"""A short image prompt gets details from the chat model: a chat job of its own, before the pictures'.

The job's id follows from that of the pictures, and it carries the whole image prompt, so that any process that follows
the pictures can go on where another one was killed. What the model is asked, and what is taken of its answer, is
``generation.image.enhance``'s affair.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time

from pydantic import TypeAdapter

from bots.cost import chat_cost_gpu_s
from bots.image_prompt import ImagePrompt, faults_in_words
from generation.image import enhance
from workers.contract import ChatBody, ChatMessage, ChatOptions, Event, ReplyTo, Request
from workers.outbox import NOBODY

_SUFFIX = "-enhance"
_LONGEST_KEY_CHARS = 80
_PENDING = "image"
_PROMPT = TypeAdapter(ImagePrompt)


def wanted(prompt: ImagePrompt) -> bool:
    """Whether a prompt is to be enhanced, and would gain."""
    return prompt.enhance and prompt.task == "generate" and enhance.worth_enhancing(prompt.text)


def enhancement_id(job_id: str) -> str:
    """Id of the chat job that belongs to an image job."""
    tenant, _, key = job_id.partition("__")
    if len(key) + len(_SUFFIX) > _LONGEST_KEY_CHARS:
        key = hashlib.sha256(key.encode()).hexdigest()[:40]
    return f"{tenant}__{key}{_SUFFIX}"


def enhancement_request(prompt: ImagePrompt, timeout_s: float) -> Request:
    """The chat job that adds details to a prompt; no front-end hears of it but through the pictures.

    Args:
        prompt: As it was asked.
        timeout_s: Longest run of one attempt.

    Raises:
        ContractError: It cannot be carried.
    """
    seed = prompt.options.seed  # the same prompt with the same seed is to give the same pictures
    if seed is None:
        seed = int.from_bytes(hashlib.sha256(prompt.job_id.encode()).digest()[:4], "big")
    with faults_in_words():
        turns = enhance.messages(prompt.text)
        messages = tuple(ChatMessage(role=turn.role, content=turn.content) for turn in turns)
        options = ChatOptions.model_validate(dataclasses.asdict(enhance.sampling(seed)))
        return Request(
            platform=prompt.platform,
            tenant=prompt.tenant,
            channel=prompt.channel,
            user=prompt.user,
            idempotency_key=enhancement_id(prompt.job_id).partition("__")[2],
            reply=ReplyTo(front_end=NOBODY.front_end, handle={_PENDING: _PROMPT.dump_json(prompt).decode()}),
            body=ChatBody(messages=messages, options=options, adapter=False),
            cost_gpu_s=chat_cost_gpu_s(messages, options.max_new_tokens),
            timeout_s=timeout_s,
            created_at_s=time.time(),
            policy=prompt.policy,
            quota=prompt.quota,
        )


def pending_prompt(event: Event) -> ImagePrompt:
    """The image prompt that an enhancement belongs to."""
    return _PROMPT.validate_json(event.reply.handle[_PENDING])


def enhanced_prompt(event: Event, answer: str) -> ImagePrompt:
    """What is drawn once the enhancement has ended: as it was asked, if the model had nothing to say.

    Args:
        event: Its end.
        answer: The chat model's.
    """
    prompt = pending_prompt(event)
    if event.type != "finished":
        return prompt
    return dataclasses.replace(prompt, text=enhance.enhanced(prompt.text, answer))
