"""From what people write to prompts: who is meant, which conversation it continues, where the answer goes."""

from __future__ import annotations

import logging
import time

from bots import answers
from bots.conversation import Conversations
from bots.handover.wording import HANDED_ON
from bots.service import Prompt
from bots.slack_bot import wording
from bots.slack_bot.claims import Claims
from bots.slack_bot.files import Files
from bots.slack_bot.intake import Intake, Tell
from bots.slack_bot.markup import escaped
from bots.slack_bot.payloads import Command, Heard
from bots.slack_bot.support import SupportDesk
from bots.slack_bot.target import FRONT_END, Target
from bots.slack_bot.whisper import Whisper
from bots.slack_bot.wording import quoted
from generation.errors import GenerationError

_TITLE_CHARS = 60

_log = logging.getLogger("palaver.slack")


class Chat:
    """Questions in messages and commands.

    Args:
        intake: Where prompts go.
        conversations: Tells which threads are the bot's.
        claims: Tells which messages are.
        files: Reads what is attached.
        whisper: Tells somebody why not.
        support: Hears what a person answers, and what one is asked.
    """

    def __init__(
        self,
        intake: Intake,
        conversations: Conversations,
        claims: Claims,
        files: Files,
        whisper: Whisper,
        support: SupportDesk,
    ) -> None:
        self._intake = intake
        self._conversations = conversations
        self._claims = claims
        self._files = files
        self._whisper = whisper
        self._support = support

    async def message(self, heard: Heard) -> None:
        """Answer a message if it is meant for the bot."""
        conversation = await self._intake.patiently(lambda: self._conversation(heard))
        if await self._is_for_a_person(heard, conversation) or conversation is None:
            return
        if not heard.text and not heard.files:
            await self._once(heard, wording.MENTIONED)
            return
        attached = await self._files.read(heard.workspace, heard.files)
        if attached.refused:
            await self._once(heard, wording.UNREADABLE.format(files=escaped("; ".join(attached.refused))))
        text = heard.text + attached.text
        if not text.strip():
            return
        target = Target(
            team=heard.workspace.team,
            enterprise=heard.workspace.enterprise or "",
            channel=heard.channel,
            user=heard.user,
            thread=heard.root,
            title=quoted(heard.text, _TITLE_CHARS),
        )
        prompt = Prompt(
            platform=FRONT_END,
            tenant=heard.workspace.tenant,
            channel=heard.channel,
            user=heard.user,
            conversation=conversation,
            key=heard.key,
            text=text,
            reply=target.reply(),
            attachments=attached.names,
        )
        if await self._intake.patiently(lambda: self._intake.supports(prompt.tenant, prompt.channel)):
            prompt = answers.answering(prompt)
        await self._intake.ask(prompt, lambda why: self._tell(heard, escaped(why)))

    async def command(self, command: Command, tell: Tell, from_knowledge: bool = False) -> None:
        """Answer a command's question in its channel.

        Args:
            command: With its question.
            tell: Tells who asked why not.
            from_knowledge: Whether what the workspace knows is quoted, instead of the model asked.
        """
        target = Target(
            team=command.workspace.team,
            enterprise=command.workspace.enterprise or "",
            channel=command.channel,
            user=command.user,
            question=command.text,
            asker=command.asker,
            response_url=command.response_url,
            made=str(int(time.time())),
        )
        prompt = Prompt(
            platform=FRONT_END,
            tenant=command.workspace.tenant,
            channel=command.channel,
            user=command.user,
            conversation=command.conversation,
            key=command.key,
            text=command.text,
            reply=target.reply(),
        )
        if from_knowledge and await self._support.asked(command):
            await tell(HANDED_ON)
            return
        if from_knowledge:
            prompt = answers.answering(prompt)
        await self._intake.ask(prompt, lambda why: tell(escaped(why)))

    async def _is_for_a_person(self, heard: Heard, conversation: str | None) -> bool:
        """Whether a person answers it; in the channels for support one can be called for."""
        if not heard.text:
            return False
        place, tenant = heard.channel, heard.workspace.tenant
        may_open = conversation is not None and await self._intake.patiently(
            lambda: self._intake.supports(tenant, place)
        )
        try:
            return await self._intake.patiently(lambda: self._support.heard(heard, conversation, may_open))
        except GenerationError as error:
            _log.warning("message %s: no hand-over could be looked for: %s", heard.key, error)
            return False

    async def _conversation(self, heard: Heard) -> str | None:
        """Which conversation a message continues; None if it is not meant for the bot."""
        if heard.direct or heard.mentioned:
            return await self._of_thread(heard) or heard.conversation
        if not heard.thread or heard.to_others:
            return None
        return await self._of_thread(heard)

    async def _of_thread(self, heard: Heard) -> str | None:
        """The conversation of a thread that the bot takes part in; None for other people's threads."""
        if not heard.thread:
            return None
        tenant = heard.workspace.tenant
        if await self._conversations.known(tenant, heard.conversation):
            return heard.conversation
        # A thread under the answer to a command continues that command.
        job_id = await self._claims.job_of(tenant, heard.channel, heard.thread)
        name = f"{heard.channel}-{job_id.partition('__')[2]}" if job_id else ""
        return name if name and await self._conversations.known(tenant, name) else None

    async def _once(self, heard: Heard, text: str) -> None:
        about = f"{heard.workspace.tenant} {heard.key} {text[:20]}"
        await self._intake.tell_once(about, text, lambda what: self._tell(heard, what))

    async def _tell(self, heard: Heard, text: str) -> bool:
        thread = heard.root if heard.direct else heard.thread
        return await self._whisper.to(heard.workspace, heard.channel, heard.user, text, thread)
