"""Pictures: from commands, buttons and modals to image prompts, and what can be done with finished pictures."""

from __future__ import annotations

import time
from dataclasses import replace

from bots import image_flags
from bots.delivery.buttons import Button
from bots.delivery.wording import refusal
from bots.image_actions import Asker, again, with_seed
from bots.image_flags import ParsedPrompt
from bots.image_prompt import ImagePrompt
from bots.request_records import RequestRecords
from bots.slack_bot import wording
from bots.slack_bot.files import Files
from bots.slack_bot.intake import Intake, Tell
from bots.slack_bot.markup import escaped
from bots.slack_bot.members import Members
from bots.slack_bot.modals import ImageForm
from bots.slack_bot.payloads import Command, Press
from bots.slack_bot.target import FRONT_END, IMAGE, Target
from bots.slack_bot.workspaces import Workspace
from workers.client import Client
from workers.contract import tenant_of
from workers.errors import JobNotFoundError, NotAllowedError, WorkersError


class Imagine:
    """What people do with pictures.

    Args:
        intake: Where prompts go.
        client: Deletes pictures.
        records: What was asked.
        members: Tells who may delete others' pictures.
        files: Fetches pictures to begin from.
    """

    def __init__(self, intake: Intake, client: Client, records: RequestRecords, members: Members, files: Files) -> None:
        self._intake = intake
        self._client = client
        self._records = records
        self._members = members
        self._files = files

    async def command(self, command: Command, parsed: ParsedPrompt, tell: Tell) -> None:
        """``/imagine``."""
        target = Target(
            team=command.workspace.team,
            enterprise=command.workspace.enterprise or "",
            channel=command.channel,
            user=command.user,
            asker=command.asker,
            response_url=command.response_url,
            made=str(int(time.time())),
            kind=IMAGE,
        )
        await self._intake.ask(_prompt(command.workspace, target, command.key, parsed), lambda why: tell(escaped(why)))

    async def submitted(
        self, workspace: Workspace, target: Target, key: str, parsed: ParsedPrompt, form: ImageForm, tell: Tell
    ) -> None:
        """A modal with a prompt.

        Args:
            workspace: Where.
            target: Where the pictures go.
            key: The modal's own.
            parsed: What is wanted.
            form: What was opened: for the prompt of an earlier job, of which is taken what flags cannot say, or for a
                message, whose picture is what to begin from.
            tell: Tells who submitted why not.
        """
        prompt = _prompt(workspace, target, key, parsed)
        known = form.base and tenant_of(form.base) == workspace.tenant
        asked = await self._records.find(form.base) if known else None
        if asked is not None:
            prompt = replace(prompt, init_image=asked.init_image, mask_image=asked.mask_image)
        elif form.picture:
            try:
                prompt = replace(prompt, init_image=await self._begin_from(workspace, target.user, form))
            except WorkersError as error:
                await self._intake.tell_once(prompt.job_id, escaped(refusal(error)), tell)
                return
        await self._intake.ask(prompt, lambda why: tell(escaped(why)))

    async def _begin_from(self, workspace: Workspace, user: str, form: ImageForm) -> str:
        """Store the picture of the message on which a form was opened; returns its id.

        Raises:
            FileRefusedError: It is no picture, too large, or not to be had.
            ArtifactError: The same, by its bytes.
            RedisUnavailableError: Redis is away.
        """
        data = await self._files.picture(workspace, form.file)
        return await self._intake.patiently(lambda: self._client.put_artifact(data, tenant=workspace.tenant, user=user))

    async def pressed(self, press: Press, button: Button, tell: Tell) -> None:
        """Vary, more, re-roll or upscale.

        Raises:
            JobNotFoundError: What was asked is not on record any more.
        """
        asked = await self._asked(press.workspace, button)
        target = Target(
            team=press.workspace.team,
            enterprise=press.workspace.enterprise or "",
            channel=press.channel,
            user=press.user,
            thread=press.thread,
            asker=press.asker,
            response_url=press.response_url,
            made=str(int(time.time())),
            kind=IMAGE,
        )
        asker = Asker(press.workspace.tenant, press.channel, press.user, press.key, target.reply())
        await self._intake.ask(again(asked, button, asker), lambda why: tell(escaped(why)))

    async def text(self, workspace: Workspace, button: Button) -> str:
        """A prompt with its flags, as a person would write it.

        Raises:
            JobNotFoundError: It is not on record any more.
        """
        asked = await self._asked(workspace, button)
        options = asked.options.model_copy(update={"seed": None} if button.action == "edit" else {})
        return image_flags.render(ParsedPrompt(asked.text, asked.negative_text, options, asked.model))

    async def delete(self, press: Press, button: Button) -> None:
        """Delete pictures for good: one's own, or as a moderator.

        Raises:
            NotAllowedError: They are somebody else's.
            JobNotFoundError: They are not on record any more, and only a moderator can delete them.
        """
        if tenant_of(button.job_id) != press.workspace.tenant:
            raise NotAllowedError(wording.OTHER_WORKSPACE)
        asked = await self._records.find(button.job_id)
        if (asked is None or asked.user != press.user) and not await self._members.is_admin(
            press.workspace, press.user
        ):
            raise NotAllowedError(wording.NOT_YOURS) if asked else JobNotFoundError(wording.NO_RECORD)
        event = await self._client.ended(button.job_id)
        for image in event.images if event else ():
            await self._client.delete_artifact(
                image.artifact_id, tenant=press.workspace.tenant, user="", moderator=True
            )
        await self._records.forget(button.job_id)

    async def _asked(self, workspace: Workspace, button: Button) -> ImagePrompt:
        found = await self._records.find(button.job_id) if tenant_of(button.job_id) == workspace.tenant else None
        if found is None:
            raise JobNotFoundError(wording.NO_RECORD)
        return found


def _prompt(workspace: Workspace, target: Target, key: str, parsed: ParsedPrompt) -> ImagePrompt:
    return ImagePrompt(
        platform=FRONT_END,
        tenant=workspace.tenant,
        channel=target.channel,
        user=target.user,
        key=key,
        text=parsed.prompt,
        reply=target.reply(),
        negative_text=parsed.negative_prompt,
        options=with_seed(parsed.options),
        model=parsed.model,
    )
