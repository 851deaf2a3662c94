"""Between an event and its acknowledgement: the work gets a moment to become durable, then the platform is answered.

The platform repeats an event that is not acknowledged within three seconds, and a killed process acknowledges none. So
an acknowledgement waits until the prompt is promised, in the usual case a few milliseconds. When Redis is slow or away,
it does not wait longer than a fraction of a second: the work goes on behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from bots.delivery.dispatch import Dispatch, end_tasks
from bots.image_prompt import ImagePrompt
from bots.service import Prompt
from bots.slack_bot.remedies import Remedies
from bots.tenant_rules import TenantRules, Whence
from workers.errors import ContractError, RedisUnavailableError, RefusedError

#: The platform's deadline is 3 s; a loaded machine needs the rest.
ACK_WITHIN_S = 0.6
#: Between attempts to reach Redis, before somebody is told that it is away.
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
_TOLD_KEPT = 4_096

_T = TypeVar("_T")

_log = logging.getLogger("palaver.slack")

#: Tells somebody something; returns whether that worked.
Tell = Callable[[str], Awaitable[bool]]


class Intake:
    """The work that events have begun.

    Args:
        dispatch: Where prompts go.
        rules: What workspaces have decided.
        remedies: What can be done about refusals.
    """

    def __init__(self, dispatch: Dispatch, rules: TenantRules, remedies: Remedies) -> None:
        self._dispatch = dispatch
        self._remedies = remedies
        self._rules = rules
        self._tasks: set[asyncio.Task[Any]] = set()
        self._told: OrderedDict[str, None] = OrderedDict()

    async def begin(
        self, work: Coroutine[Any, Any, Any], what: str, within_s: float = ACK_WITHIN_S
    ) -> asyncio.Task[Any]:
        """Begin something and return when it is done, or when the platform cannot be kept waiting any longer.

        Args:
            work: What to do; its errors are logged.
            what: For the log.
            within_s: How long to wait for it.
        """
        task = asyncio.create_task(work, name=what)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        await asyncio.wait({task}, timeout=within_s)
        return task

    async def patiently(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Do something that needs Redis, however often it must be asked.

        Raises:
            RedisUnavailableError: It stayed away.
        """
        for pause_s in _PAUSES_S:
            try:
                return await work()
            except RedisUnavailableError:
                await asyncio.sleep(pause_s)
        return await work()

    async def ask(self, prompt: Prompt | ImagePrompt, tell: Tell) -> None:
        """Hand a prompt on, however often Redis must be asked.

        Args:
            prompt: What somebody wants.
            tell: Tells that person privately why not.
        """
        try:
            await self.patiently(lambda: self._hand_on(prompt))
        except (RefusedError, ContractError, RedisUnavailableError) as error:
            text, buttons = await self._remedies.offers.told(error, prompt.job_id)
            await self._dispatch.decline(prompt.job_id, self.tell_once(prompt.job_id, text, tell))
            if buttons:
                await self.tell_once(f"{prompt.job_id} buttons", "", lambda _: self._remedies.offer(prompt, buttons))

    async def supports(self, tenant: str, channel: str) -> bool:
        """Whether a workspace wants a channel's mentions answered from what it knows."""
        return await self._rules.supports(tenant, Whence(channels=(channel,)))

    async def _hand_on(self, prompt: Prompt | ImagePrompt) -> bool:
        """Hand a prompt on as its workspace wants it; there are no roles, so people are named one by one."""
        whence = Whence(channels=(prompt.channel,), roles=(prompt.user,))
        return await self._dispatch.ask(await self._rules.apply(prompt, whence))

    async def close(self) -> None:
        """Give up what is not promised yet."""
        await end_tasks(list(self._tasks))

    async def tell_once(self, about: str, what: str, tell: Tell) -> bool:
        """Tell somebody something, once for events that come twice; returns whether it was told by now."""
        if about in self._told:
            return True
        self._told[about] = None
        while len(self._told) > _TOLD_KEPT:
            self._told.popitem(last=False)
        told = await tell(what)
        if not told:
            self._told.pop(about, None)
        return told

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s failed: %s", task.get_name(), type(error).__name__, exc_info=error)
