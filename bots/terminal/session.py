"""One person's conversation at a terminal: who asks, where it is kept, how answers are sampled."""

from __future__ import annotations

import contextlib
import copy
import getpass
import re
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeVar

import redis

from bots.connection import client_of
from bots.conversation import Conversations, History
from bots.image_prompt import ImagePrompt
from bots.moderation import LateRecord, moderation_of
from bots.service import ChatService, Prompt
from bots.settings import Settings
from bots.terminal.answer import Answer
from bots.terminal.drawing import Drawing
from workers import keys
from workers.artifacts import media_type_of
from workers.client import CancelOutcome
from workers.contract import ChatOptions, ImageOptions, ReplyTo
from workers.usage import Usage

FRONT_END = "terminal"

Watched = TypeVar("Watched", Answer, Drawing)
_EVENTS_KEPT = 1_000


def local_user() -> str:
    """The login name in the form that identifiers allow."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        name = ""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40] or "somebody"


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks.

    Attributes:
        tenant: Counts for fairness and limits.
        user: Likewise, and the only one who may stop the answer.
    """

    tenant: str
    user: str


class Session:
    """Asks, follows and stops on behalf of one person; use as an async context manager.

    Args:
        settings: Where the queue is and what it allows.
        asker: Who asks.
        options: How answers are sampled. Without a seed, each question draws one of its own and sends it along, so that
            an answer which has to begin anew tends to repeat itself.
    """

    def __init__(self, settings: Settings, asker: Asker, options: ChatOptions) -> None:
        self._asker = asker
        self._options = options
        self.conversation = secrets.token_hex(8)
        self._client = client_of(settings)
        self._conversations = Conversations(self._client.connection, settings.conversation)
        rules = [moderation_of(settings, LateRecord(settings))]
        self._service = ChatService(self._client, self._conversations, rules)

    def beside(self, asker: Asker) -> Session:
        """Somebody else's conversation on the same connections; only the first one is closed."""
        other = copy.copy(self)
        other._asker = asker  # noqa: SLF001 - a copy of itself
        other.conversation = secrets.token_hex(8)
        return other

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        # Terminals follow their jobs and read no events; those of long-lived front-ends are acknowledged away.
        with contextlib.suppress(redis.RedisError, OSError):
            await self._client.connection.xtrim(keys.events(FRONT_END), maxlen=_EVENTS_KEPT)
        await self._client.close()

    async def ask(
        self, text: str, options: ChatOptions | None = None, change: Callable[[Prompt], Prompt] = lambda prompt: prompt
    ) -> Answer:
        """Put a question into the queue; errors are those of ``ChatService.ask``.

        Args:
            text: The question.
            options: How the answer is sampled; those of the session by default.
            change: Makes another prompt of it, such as ``bots.answers.answering``.
        """
        options = options or self._options
        if options.seed is None:
            options = options.model_copy(update={"seed": secrets.randbits(31)})
        prompt = Prompt(
            platform=FRONT_END,
            tenant=self._asker.tenant,
            channel=self.conversation,
            user=self._asker.user,
            conversation=self.conversation,
            key=secrets.token_hex(8),
            text=text,
            reply=ReplyTo(front_end=FRONT_END),
            options=options,
        )
        submitted = await self._service.ask(change(prompt))
        return Answer(submitted.job_id)

    def again(self, job_id: str) -> Answer:
        """The answer of an earlier question, to be followed from its beginning."""
        return Answer(job_id)

    async def imagine(
        self,
        text: str,
        options: ImageOptions,
        negative_text: str = "",
        init: bytes | None = None,
        mask: bytes | None = None,
        enhance: bool = False,
    ) -> Drawing:
        """Put an image prompt into the queue.

        Args:
            text: What the pictures show; empty to enlarge ``init`` alone.
            options: How they are drawn. Without a seed one is drawn here, so that the pictures can be had again.
            negative_text: What they do not show.
            init: Encoded picture to begin from.
            mask: Encoded picture that is white where ``init`` is drawn anew.
            enhance: Whether the chat model adds details first.

        Raises:
            ArtifactError: A picture cannot be used.
            RefusedError: As ``ChatService.imagine``, like all others.
        """
        if options.seed is None:
            options = options.model_copy(update={"seed": secrets.randbits(31)})
        prompt = ImagePrompt(
            platform=FRONT_END,
            tenant=self._asker.tenant,
            channel=self.conversation,
            user=self._asker.user,
            key=secrets.token_hex(8),
            text=text,
            reply=ReplyTo(front_end=FRONT_END),
            negative_text=negative_text,
            options=options,
            task="generate" if text else "upscale",
            init_image=await self._upload(init),
            mask_image=await self._upload(mask),
            enhance=enhance,
            attachments=tuple(f"picture.{media_type_of(each).partition('/')[2]}" for each in (init, mask) if each),
        )
        submitted = await self._service.imagine(prompt)
        return Drawing(submitted.job_id)

    def drawn_before(self, job_id: str) -> Drawing:
        """The pictures of an earlier prompt, to be followed from their beginning."""
        return Drawing(job_id)

    async def artifact(self, artifact_id: str) -> bytes:
        """The bytes of a finished picture."""
        return await self._client.artifact(artifact_id)

    async def _upload(self, picture: bytes | None) -> str | None:
        if picture is None:
            return None
        return await self._client.put_artifact(picture, tenant=self._asker.tenant, user=self._asker.user)

    async def follow(self, watched: Watched) -> AsyncIterator[Watched]:
        """The answer or drawing again and again, each time it has changed, until its end."""
        async for update in self._service.follow(watched.job_id):
            watched.take(update)
            yield watched

    async def stop(self, watched: Answer | Drawing) -> CancelOutcome:
        """Stop an answer or drawing, queued or running."""
        return await self._service.stop(watched.job_id, self._asker.user)

    async def usage(self) -> Usage:
        """What this person and their tenant have used today and this month, in all conversations."""
        return await self._client.usage(self._asker.tenant, self._asker.user)

    async def set_persona(self, persona: str | None) -> None:
        """Give this conversation its own system text, or the configured one again."""
        await self._conversations.set_persona(self._asker.tenant, self.conversation, persona)

    async def history(self) -> History:
        """What is kept of this conversation."""
        return await self._conversations.history(self._asker.tenant, self.conversation)

    async def start_anew(self) -> None:
        """Forget this conversation, but keep its persona."""
        persona = (await self.history()).persona
        await self._conversations.forget(self._asker.tenant, self.conversation)
        if persona is not None:
            await self.set_persona(persona)
