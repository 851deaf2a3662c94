"""What somebody wants to see, and the request that it becomes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import ValidationError

from bots.cost import image_cost_gpu_s
from generation.moderation.policy import EffectivePolicy
from generation.types import ImageTask
from workers.contract import ImageBody, ImageOptions, Quota, ReplyTo, Request
from workers.errors import ContractError


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """What somebody wants to see, wherever that was asked.

    Attributes:
        platform: Which front-end, such as ``terminal``.
        tenant: Guild or workspace, prefixed by the platform.
        channel: Channel, direct message or terminal.
        user: Who asks.
        key: The platform's own id of the event, so that a repeated event is no second prompt.
        text: What the pictures show.
        reply: Where they go.
        negative_text: What they do not show.
        options: How they are drawn.
        task: ``generate``, or ``upscale`` for ``init_image`` alone.
        init_image: Id of the picture to begin from, see ``Client.put_artifact``.
        mask_image: Id of a picture of the same size, white where the first one is drawn anew.
        enhance: Whether the chat model first adds details to ``text``; ``follow`` tells what came of it.
        policy: How the tenant wants it moderated, in that channel and for that user; None for the operator's default.
        model: Which image model draws it; None for the operator's usual one.
        attachments: Names of the files that came with it, which the tenant's policy may not accept.
        quota: Limits and budgets that hold for its author there; None for the operator's general ones.
    """

    platform: str
    tenant: str
    channel: str
    user: str
    key: str
    text: str
    reply: ReplyTo
    negative_text: str = ""
    options: ImageOptions = field(default_factory=ImageOptions)
    task: ImageTask = "generate"
    init_image: str | None = None
    mask_image: str | None = None
    enhance: bool = False
    policy: EffectivePolicy | None = None
    model: str | None = None
    attachments: tuple[str, ...] = ()
    quota: Quota | None = None

    @property
    def job_id(self) -> str:
        """The id of the job that draws it."""
        return f"{self.tenant}__{self.key}"


def image_request(prompt: ImagePrompt, timeout_s: float) -> Request:
    """What goes into the queue.

    Args:
        prompt: What is wanted.
        timeout_s: Longest run of one attempt.

    Raises:
        ContractError: It cannot be carried: it is far too long, or a name has forbidden characters.
    """
    with faults_in_words():
        body = ImageBody(
            kind="image",
            task=prompt.task,
            prompt=prompt.text,
            negative_prompt=prompt.negative_text,
            options=prompt.options,
            init_image=prompt.init_image,
            mask_image=prompt.mask_image,
        )
        return Request(
            platform=prompt.platform,
            tenant=prompt.tenant,
            channel=prompt.channel,
            user=prompt.user,
            idempotency_key=prompt.key,
            reply=prompt.reply,
            body=body,
            cost_gpu_s=image_cost_gpu_s(body),
            timeout_s=timeout_s,
            created_at_s=time.time(),
            policy=prompt.policy,
            model=prompt.model,
            quota=prompt.quota,
        )


@contextmanager
def faults_in_words() -> Iterator[None]:
    """Say what cannot be carried, without its content."""
    try:
        yield
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
        raise ContractError(f"The prompt's {fault['loc'][-1]} is not accepted: {fault['msg']}.") from None
