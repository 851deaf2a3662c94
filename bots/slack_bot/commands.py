"""Slash commands: each is answered privately at once, and what it begins appears in the channel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from bots import image_flags
from bots.delivery import wording as common
from bots.image_flags import FlagError
from bots.slack_bot import markup, wording
from bots.slack_bot.account import Account
from bots.slack_bot.blocks import Block
from bots.slack_bot.chat import Chat
from bots.slack_bot.imagine import Imagine
from bots.slack_bot.intake import Intake, Tell
from bots.slack_bot.knowledge import KnowledgeAdmin
from bots.slack_bot.payloads import Command
from bots.slack_bot.remedies import Remedies
from bots.slack_bot.verification import Verification
from bots.slack_bot.whisper import Whisper
from generation.errors import GenerationError
from workers.errors import WorkersError


@dataclass(frozen=True, slots=True)
class Reply:
    """The private answer to a command.

    Attributes:
        text: In ``mrkdwn``; nothing for none.
        shown: Blocks instead of the bare text.
    """

    text: str = ""
    shown: list[Block] = field(default_factory=list)


class Commands:
    """What commands do.

    Args:
        intake: Begins work.
        chat: Questions.
        imagine: Pictures.
        account: What somebody has used, and what is kept.
        whisper: Tells somebody why not, when the private answer has been given.
        remedies: Appeals.
        verification: Tells where pictures came from.
        retention_s: How long conversations are kept.
        has_knowledge: Tells whether there is a store of knowledge.
        knowledge: Changes it.
    """

    def __init__(
        self,
        intake: Intake,
        chat: Chat,
        imagine: Imagine,
        account: Account,
        whisper: Whisper,
        remedies: Remedies,
        verification: Verification,
        retention_s: int,
        has_knowledge: Callable[[], bool],
        knowledge: KnowledgeAdmin,
    ) -> None:
        self._intake = intake
        self._chat = chat
        self._imagine = imagine
        self._account = account
        self._retention_s = retention_s
        self._whisper = whisper
        self._has_knowledge = has_knowledge
        self._knowledge = knowledge
        self._remedies = remedies
        self._verification = verification
        self._known: dict[str, Callable[[Command], Awaitable[Reply]]] = {
            "chat": self._chat_command,
            "ask": self._ask,
            "imagine": self._imagine_command,
            "usage": self._usage,
            "forget": self._forget,
            "privacy": self._privacy,
            "moderation": self._moderation,
            "verify": self._verify,
            "knowledge": self._knowledge_command,
        }

    async def run(self, command: Command) -> Reply:
        """Run a command; returns what to answer it with, soon enough for the platform."""
        known = self._known.get(command.name.lstrip("/").lower())
        return await known(command) if known else Reply(wording.HELP)

    async def _chat_command(self, command: Command) -> Reply:
        return await self._question(command, wording.ON_IT)

    async def _ask(self, command: Command) -> Reply:
        knows = self._has_knowledge()
        reply = wording.ON_IT if knows else f"{wording.ON_IT} {wording.NO_KNOWLEDGE}"
        return await self._question(command, reply, from_knowledge=knows)

    async def _question(self, command: Command, reply: str, from_knowledge: bool = False) -> Reply:
        if not command.text:
            return Reply(wording.ASK_SOMETHING.format(command=command.name))
        return await self._begin(command, lambda tell: self._chat.command(command, tell, from_knowledge), reply)

    async def _imagine_command(self, command: Command) -> Reply:
        try:
            parsed = image_flags.parse(command.text)
        except FlagError as error:
            return Reply(f"{markup.escaped(str(error))}\n\n{wording.FLAGS}")
        return await self._begin(command, lambda tell: self._imagine.command(command, parsed, tell), wording.DRAWING)

    async def _usage(self, command: Command) -> Reply:
        return await self._told(command, lambda: self._account.usage(command.user))

    async def _forget(self, command: Command) -> Reply:
        return await self._told(command, lambda: self._account.forget(command.workspace, command.channel, command.user))

    async def _privacy(self, command: Command) -> Reply:
        del command
        return Reply(wording.PRIVACY_TITLE, self._account.privacy(self._retention_s))

    async def _verify(self, command: Command) -> Reply:
        return await self._told(command, lambda: self._verification.of_link(command.workspace, command.text))

    async def _knowledge_command(self, command: Command) -> Reply:
        return await self._told(command, lambda: self._knowledge.command(command.workspace, command.user, command.text))

    async def _moderation(self, command: Command) -> Reply:
        """Appeals for whoever may decide them; behind the acknowledgement, for the record may be slow."""

        async def run() -> None:
            try:
                text, shown = await self._remedies.waiting(command.workspace, command.user)
            except WorkersError as error:
                text, shown = markup.escaped(common.refusal(error)), []
            place = (command.workspace, command.response_url, command.channel, command.user)
            await self._whisper.back(*place, text, shown or None)

        await self._intake.begin(run(), "a command", 0.0)
        return Reply(wording.LOOKING)

    async def _told(self, command: Command, ask: Callable[[], Awaitable[str]]) -> Reply:
        """Find something out and tell it, with the answer to the command if that is soon enough."""
        found: list[str] = []
        late = False

        async def run() -> None:
            try:
                text = await self._intake.patiently(ask)
            except (WorkersError, GenerationError) as error:
                text = markup.escaped(common.refusal(error))
            if not late:
                found.append(text)
                return
            place = (command.workspace, command.response_url, command.channel, command.user)
            await self._whisper.back(*place, text)

        await self._intake.begin(run(), "a command")
        late = True
        return Reply(found[0]) if found else Reply(wording.LOOKING)

    async def _begin(self, command: Command, work: Callable[[Tell], Coroutine[Any, Any, None]], reply: str) -> Reply:
        """Begin something; returns the answer to the command, or why it was not taken."""
        refusals: list[str] = []
        answered = False

        async def tell(why: str) -> bool:
            if not answered:
                refusals.append(why)
                return True
            place = (command.workspace, command.response_url, command.channel, command.user)
            return await self._whisper.back(*place, why)

        await self._intake.begin(work(tell), "a command")
        answered = True
        return Reply(refusals[0] if refusals else reply)
