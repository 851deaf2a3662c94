"""A short image prompt gets details from the chat model: a chat job of its own, before the pictures'.

The job's id follows from that of the pictures, and it carries the whole image prompt, so that any process that follows
the pictures can go on where another one was killed.
"""

from __future__ import annotations

import hashlib
import time

from pydantic import TypeAdapter

from bots.cost import chat_cost_gpu_s
from bots.image_prompt import ImagePrompt, faults_in_words
from workers.contract import ChatBody, ChatMessage, ChatOptions, Event, ReplyTo, Request
from workers.outbox import NOBODY

#: A longer prompt is detailed enough.
LONGEST_TEXT_CHARS = 300
_LONGEST_DETAILS_CHARS = 300
_SUFFIX = "-enhance"
_LONGEST_KEY_CHARS = 80
_PENDING = "image"
_PROMPT = TypeAdapter(ImagePrompt)

#: The first two turns show small models the form; without them they greet and explain.
_TURNS = (
    ChatMessage(
        role="system",
        content="You add visual details to a short description of a picture: colours, light, surroundings, style. "
        "Reply with a short list of details, separated by commas, in the language of the description. "
        "Never change what the picture shows. Write nothing else.",
    ),
    ChatMessage(role="user", content="a cat on a sofa"),
    ChatMessage(
        role="assistant", content="orange fur, sleepy eyes, blue velvet sofa, warm evening light, soft shadows"
    ),
    ChatMessage(role="user", content="a castle"),
    ChatMessage(
        role="assistant", content="grey stone towers, red flags, green hills, clear morning sky, storybook style"
    ),
)
_OPTIONS = ChatOptions(max_new_tokens=60, temperature=0.7, repetition_penalty=1.1, stop=("\n",))


def wanted(prompt: ImagePrompt) -> bool:
    """Whether a prompt is to be enhanced, and can be."""
    return prompt.enhance and prompt.task == "generate" and 0 < len(prompt.text.strip()) <= LONGEST_TEXT_CHARS


def enhancement_id(job_id: str) -> str:
    """Id of the chat job that belongs to an image job."""
    tenant, _, key = job_id.partition("__")
    if len(key) + len(_SUFFIX) > _LONGEST_KEY_CHARS:
        key = hashlib.sha256(key.encode()).hexdigest()[:40]
    return f"{tenant}__{key}{_SUFFIX}"


def enhancement_request(prompt: ImagePrompt, timeout_s: float) -> Request:
    """The chat job that adds details to a prompt.

    Args:
        prompt: As it was asked.
        timeout_s: Longest run of one attempt.

    Raises:
        ContractError: It cannot be carried.
    """
    seed = int.from_bytes(hashlib.sha256(prompt.job_id.encode()).digest()[:4], "big")
    with faults_in_words():
        messages = (*_TURNS, ChatMessage(role="user", content=prompt.text.strip()))
        return Request(
            platform=prompt.platform,
            tenant=prompt.tenant,
            channel=prompt.channel,
            user=prompt.user,
            idempotency_key=enhancement_id(prompt.job_id).partition("__")[2],
            reply=ReplyTo(front_end=NOBODY.front_end, handle={_PENDING: _PROMPT.dump_json(prompt).decode()}),
            body=ChatBody(
                messages=messages,
                options=_OPTIONS.model_copy(update={"seed": seed}),
            ),
            cost_gpu_s=chat_cost_gpu_s(messages, _OPTIONS.max_new_tokens),
            timeout_s=timeout_s,
            created_at_s=time.time(),
        )


def pending_prompt(event: Event) -> ImagePrompt:
    """The image prompt that an enhancement belongs to."""
    return _PROMPT.validate_json(event.reply.handle[_PENDING])


def with_details(text: str, answer: str) -> str:
    """What is drawn: what was asked for, and then the model's details, so that it cannot lose the subject.

    Args:
        text: As it was asked.
        answer: The chat model's.

    Returns:
        One line; ``text`` itself if the answer holds no details.
    """
    details = " ".join(answer.split()).strip(" ,.;:\"'")
    if len(details) > _LONGEST_DETAILS_CHARS:
        details = details[:_LONGEST_DETAILS_CHARS]
        details = details.rpartition("," if "," in details else " ")[0]
    text = text.strip().rstrip(".,;")
    return f"{text}, {details}" if details else text
