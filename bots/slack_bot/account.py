"""What somebody has used and what is kept about somebody, in this workspace: shown, exported, deleted."""

from __future__ import annotations

import json

from bots.conversation import Conversations
from bots.privacy import Privacy
from bots.request_records import RequestRecords
from bots.slack_bot import blocks, wording
from bots.slack_bot.blocks import Block
from bots.slack_bot.markup import escaped
from bots.slack_bot.target import FRONT_END
from bots.slack_bot.workspaces import Workspace
from bots.usage import DAYS, UsageRecords, Used

EXPORT = "palaver_export"
DELETE = "palaver_delete"
_RECENT = 5
#: What fits into a section, with its fence.
_EXPORT_PART_CHARS = 2_800
_EXPORT_PARTS = 40


class Account:
    """One person's side of what is kept.

    Args:
        usage: Sums.
        records: Image prompts.
        conversations: Histories.
        privacy: Exports and deletes.
    """

    def __init__(
        self, usage: UsageRecords, records: RequestRecords, conversations: Conversations, privacy: Privacy
    ) -> None:
        self._usage = usage
        self._records = records
        self._conversations = conversations
        self._privacy = privacy

    async def usage(self, user: str) -> str:
        """What somebody has used, in ``mrkdwn``."""
        today = await self._usage.today(FRONT_END, user)
        lately = await self._usage.lately(FRONT_END, user)
        return f"*Today*: {_line(today)}\n*Last {DAYS} days*: {_line(lately)}"

    async def recent(self, workspace: Workspace, user: str) -> list[Block]:
        """Somebody's latest questions and pictures, newest first."""
        return [*await self._questions(workspace, user), *await self._pictures(workspace, user)]

    async def _questions(self, workspace: Workspace, user: str) -> list[Block]:
        author = f"{FRONT_END}:{user}"
        places = [name for tenant, name in await self._conversations.of_author(author) if tenant == workspace.tenant]
        # A thread is named after the time of its first message; commands are not, and show in their channels.
        threads = sorted((name for name in places if _begun(name)), key=_begun, reverse=True)[:_RECENT]
        asked = [await self._conversations.turns_of(workspace.tenant, name, author) for name in threads]
        lines = [f"• {escaped(wording.quoted(turns[-1].question, 100))}" for turns in asked if turns]
        return [blocks.section("*Latest questions*\n" + "\n".join(lines))] if lines else []

    async def _pictures(self, workspace: Workspace, user: str) -> list[Block]:
        found = await self._records.recent(FRONT_END, user, _RECENT)
        own = [each for each in found if each.tenant == workspace.tenant]
        lines = [f"• {escaped(wording.quoted(each.text or 'An enlarged picture', 100))}" for each in own]
        return [blocks.section("*Latest pictures*\n" + "\n".join(lines))] if lines else []

    async def forget(self, workspace: Workspace, channel: str, user: str) -> str:
        """Delete what is remembered of what somebody has said in a channel; says how much that was."""
        author, count = f"{FRONT_END}:{user}", 0
        for tenant, name in await self._conversations.of_author(author):
            if tenant == workspace.tenant and name.startswith(f"{channel}-"):
                count += await self._conversations.forget_author(tenant, name, author)
        people = await self._privacy.forget_hand_overs(
            workspace.tenant, user, lambda name: name.startswith(f"{channel}-")
        )
        if not count and not people:
            return wording.NOTHING_TO_FORGET
        return wording.FORGOTTEN.format(count=count)

    def privacy(self, retention_s: int) -> list[Block]:
        """What is kept, with buttons to export and delete it."""
        return [
            blocks.section(wording.PRIVACY.format(days=round(retention_s / 86_400))),
            {
                "type": "actions",
                "elements": [
                    blocks.button("Export my data", EXPORT),
                    blocks.button("Delete my data", DELETE, style="danger"),
                ],
            },
        ]

    async def export(self, workspace: Workspace, user: str) -> list[Block]:
        """All that is kept about somebody, as JSON."""
        kept = json.dumps(await self._privacy.export(FRONT_END, workspace.tenant, user), ensure_ascii=False, indent=1)
        text = escaped(kept)
        parts = [text[at : at + _EXPORT_PART_CHARS] for at in range(0, len(text), _EXPORT_PART_CHARS)]
        shown = [blocks.section(f"```{part}```") for part in parts[:_EXPORT_PARTS]]
        return shown if len(parts) <= _EXPORT_PARTS else [*shown, blocks.context(wording.EXPORT_CUT)]

    async def delete(self, workspace: Workspace, user: str) -> str:
        """Delete all of it; says how much that was."""
        deleted = await self._privacy.delete(FRONT_END, workspace.tenant, user)
        return wording.DELETED.format(turns=deleted.turns, records=deleted.records)


def _begun(conversation: str) -> str:
    """When a thread began, in the order of time; nothing for a command's conversation."""
    seconds = conversation.partition("-")[2]
    return seconds if seconds[:1].isdecimal() else ""


def _line(used: Used) -> str:
    return f"{used.answers} answers ({used.tokens} tokens), {used.pictures} pictures, {used.gpu_s:.1f} GPU-seconds"
