"""Hand-overs in Slack: a ticket is a message in the team's channel, and its thread."""

from __future__ import annotations

from bots.delivery import buttons
from bots.delivery.buttons import SUPPORT, Button
from bots.delivery.splitting import split
from bots.delivery.surface import GoneError
from bots.handover.desk import Handover
from bots.handover.learning import Learning
from bots.handover.tickets import Customer, Ticket
from bots.slack_bot import blocks
from bots.slack_bot.markup import measure
from bots.slack_bot.members import Members
from bots.slack_bot.modals import MOST_CHARS, text_of
from bots.slack_bot.payloads import Command, Heard, Press
from bots.slack_bot.target import FRONT_END, Target
from bots.slack_bot.workspaces import Workspace, Workspaces
from workers.contract import ReplyTo

AMEND_MODAL = "palaver_amend"
_ANSWER = "answer"
_METADATA = "palaver_support"
_SEARCHED = 100
_NOT_HERE = "There is no such draft, or only an admin of the workspace can decide on it."


def customer_of(tenant: str, conversation: str, reply: ReplyTo) -> Customer | None:
    """Who asked, from the handle of the answer."""
    target = Target.of(reply)
    if target is None or not conversation:
        return None
    return Customer(FRONT_END, tenant, target.user, conversation, target.channel, target.thread)


class SlackSupport:
    """Shows hand-overs; see ``bots.handover.relay.SupportPlatform``.

    Args:
        workspaces: Where the bot is installed.
    """

    def __init__(self, workspaces: Workspaces) -> None:
        self._workspaces = workspaces

    async def open_card(self, ticket: Ticket, text: str, buttons: tuple[str, ...], nonce: str) -> tuple[str, str]:
        """Post a ticket's message; its thread needs no opening."""
        workspace = self._of(ticket.customer)
        ts = await self._post(workspace, ticket.team_channel, "", text, buttons, nonce)
        return ts, thread_name(ticket.team_channel, ts)

    async def change_card(self, ticket: Ticket, text: str, buttons: tuple[str, ...]) -> None:
        """Show a ticket's message anew."""
        shown = _content(text, buttons)
        await self._of(ticket.customer).call("chat.update", channel=ticket.team_channel, ts=ticket.card, **shown)

    async def tell_team(self, ticket: Ticket, text: str, buttons: tuple[str, ...], nonce: str) -> None:
        """Post in a ticket's thread."""
        await self._post(self._of(ticket.customer), ticket.team_channel, ticket.card, text, buttons, nonce)

    async def tell_customer(self, customer: Customer, text: str, nonce: str) -> None:
        """Post where the customer reads."""
        await self._post(self._of(customer), customer.channel, customer.thread, text, (), nonce)

    def _of(self, customer: Customer) -> Workspace:
        enterprise, _, team = customer.tenant.removeprefix(f"{FRONT_END}-").rpartition("-")
        workspace = self._workspaces.find(team, enterprise or None)
        if workspace is None:
            raise GoneError("the bot was removed from the workspace")
        return workspace

    async def _post(
        self, workspace: Workspace, channel: str, thread: str, text: str, buttons: tuple[str, ...], nonce: str
    ) -> str:
        """Post once: Slack takes no nonce, so that what a dead process may have posted is looked for."""
        known = await self._find(workspace, channel, thread, nonce)
        parts = [part.text for part in split(text, blocks.MARKDOWN_LIMIT, measure)]
        ts = known
        for number, part in enumerate(parts):
            if known:
                break
            shown = _content(part, buttons if number == len(parts) - 1 else ())
            metadata = {"event_type": _METADATA, "event_payload": {"nonce": nonce}}
            sent = await workspace.call(
                "chat.postMessage", channel=channel, thread_ts=thread or None, metadata=metadata, **shown
            )
            ts = ts or str(sent.get("ts", ""))
        return ts

    async def _find(self, workspace: Workspace, channel: str, thread: str, nonce: str) -> str:
        where = {"channel": channel, "limit": _SEARCHED, "include_all_metadata": "true"}
        if thread:
            found = await workspace.ask("conversations.replies", ts=thread, **where)
        else:
            found = await workspace.ask("conversations.history", **where)
        for message in found.get("messages", []):
            payload = (message.get("metadata") or {}).get("event_payload") or {}
            if payload.get("nonce") == nonce:
                return str(message["ts"])
        return ""


class SupportDesk:
    """What people say and press in Slack, told to the hand-overs.

    Args:
        handover: Those.
        learning: What becomes of resolved ones.
        members: Tells who may decide on drafts.
    """

    def __init__(self, handover: Handover, learning: Learning, members: Members) -> None:
        self._handover = handover
        self._learning = learning
        self._members = members

    async def heard(self, heard: Heard, conversation: str | None, may_open: bool) -> bool:
        """Hear a message first; returns whether it is a person's business."""
        tenant = heard.workspace.tenant
        thread = thread_name(heard.channel, heard.thread) if heard.thread else ""
        if thread and await self._handover.team_said(tenant, thread, f"@{heard.user}", heard.text, heard.key):
            return True
        name = conversation or heard.conversation
        customer = Customer(FRONT_END, tenant, heard.user, name, heard.channel, heard.root)
        return await self._handover.heard(customer, f"@{heard.user}", heard.text, heard.key, may_open)

    async def asked(self, command: Command) -> bool:
        """Hear a question first; returns whether it is a person's business."""
        customer = Customer(FRONT_END, command.workspace.tenant, command.user, command.conversation, command.channel)
        return await self._handover.heard(customer, command.asker, command.text, command.key, may_open=True)

    async def pressed(self, press: Press, button: Button) -> str:
        """A button of a hand-over, or below an answer; returns what to tell who pressed it, nothing for a window."""
        tenant, moderator = press.workspace.tenant, await self._members.is_admin(press.workspace, press.user)
        if button.action != "amend":
            return await self._handover.pressed(button, tenant, press.user, press.asker, moderator)
        known = {draft.draft_id: draft for draft in await self._learning.drafts(tenant)}
        draft = known.get(button.job_id)
        if draft is None or not moderator:
            return _NOT_HERE
        view = _form(draft.draft_id, draft.answer)
        await press.workspace.call("views.open", trigger_id=press.trigger_id, view=view)
        return ""

    async def amended(self, workspace: Workspace, user: str, name: str, view: dict[str, object]) -> None:
        """The window of an edited answer was submitted."""
        if await self._members.is_admin(workspace, user):
            draft_id, answer = str(view.get("private_metadata", "")), text_of(view, _ANSWER)
            await self._learning.decide(workspace.tenant, draft_id, approved=True, by=name, answer=answer)


def is_support(button: Button | None) -> bool:
    """Whether a button is one of hand-overs."""
    return button is not None and button.action in SUPPORT


def thread_name(channel: str, ts: str) -> str:
    """A thread's name among all of a workspace."""
    return f"{channel}-{ts}"


def _content(text: str, ids: tuple[str, ...]) -> dict[str, object]:
    known = tuple(button for button in map(buttons.parse, ids) if button is not None)
    return {"text": blocks.summary(text), "blocks": [blocks.markdown(text), *blocks.rows(known)]}


def _form(draft_id: str, answer: str) -> dict[str, object]:
    plain = {"type": "plain_text", "text": "Edit the answer"}
    field = {
        "type": "plain_text_input",
        "action_id": "text",
        "multiline": True,
        "max_length": MOST_CHARS,
        "initial_value": answer[:MOST_CHARS],
    }
    label = {"type": "plain_text", "text": "What is answered"}
    block = {"type": "input", "block_id": _ANSWER, "label": label, "element": field}
    return {
        "type": "modal",
        "callback_id": AMEND_MODAL,
        "title": plain,
        "submit": {"type": "plain_text", "text": "Approve"},
        "private_metadata": draft_id,
        "blocks": [block],
    }
