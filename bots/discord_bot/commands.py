"""The slash commands that people use: /chat, /imagine, /show, /forget, /help."""

from __future__ import annotations

from typing import Any

import discord
from discord import app_commands
from pydantic import ValidationError

from bots.discord_bot import handles
from bots.discord_bot.desk import Desk, is_moderator, whisper
from bots.discord_bot.shows import Shows
from bots.image_actions import with_seed
from bots.image_prompt import ImagePrompt
from bots.privacy import Privacy
from bots.service import Prompt
from workers.contract import ImageOptions, ReplyTo
from workers.errors import ContractError

#: Of the embedded image model; other models have none or others, which can be typed.
STYLES = ("shaded", "blob", "flat", "modern", "glossy", "classic", "soft", "outlined")
RATIOS = ("1:1", "16:9", "9:16", "3:2", "2:3", "4:3", "3:4")
_LONGEST_CHOICE_CHARS = 90
_LONGEST_NAME_CHARS = 100

HELP = """\
I am a machine: what I write and draw is made by models, and may be wrong.
**Talk to me**: mention me, reply to me, write to me directly or in a thread of mine, or use `/chat`.
**/imagine** draws pictures; the buttons below them vary, enlarge or repeat them.
**/ask** answers from this server's documents and says where it stands.
**/show** brings back an earlier picture. **Stop** ends an answer or a drawing at once.
**/forget** deletes what I remember of this conversation.
**/usage** shows what you have used, **/privacy** exports or deletes all that is kept about you."""


class Commands:
    """Registers the commands.

    Args:
        desk: Where prompts go.
        shows: Shows jobs again.
        tree: Where to register.
        privacy: Forgets what people and documents were asked.
    """

    def __init__(self, desk: Desk, shows: Shows, tree: app_commands.CommandTree[Any], privacy: Privacy) -> None:
        self._desk = desk
        self._privacy = privacy
        self._shows = shows
        tree.add_command(self._chat())
        tree.add_command(self._imagine())
        tree.add_command(self._show())
        tree.add_command(self._forget())
        tree.add_command(self._help())

    def _chat(self) -> app_commands.Command[Any, ..., Any]:
        @app_commands.command(name="chat", description="Ask the model something.")
        @app_commands.describe(
            prompt="What to answer.", file="A text file to read along.", private="Only you see the answer."
        )
        async def chat(
            interaction: discord.Interaction,
            prompt: app_commands.Range[str, 1, 6000],
            file: discord.Attachment | None = None,
            private: bool = False,
        ) -> None:
            async def make(reply: ReplyTo) -> Prompt:
                return Prompt(
                    **_who(interaction),
                    conversation=str(interaction.channel_id),
                    text=await self._desk.attachments.with_texts(prompt, [file] if file else []),
                    reply=reply,
                    attachments=(file.filename,) if file else (),
                )

            await self._desk.take(interaction, make, private)

        return chat

    def _imagine(self) -> app_commands.Command[Any, ..., Any]:
        @app_commands.command(name="imagine", description="Draw pictures.")
        @app_commands.describe(
            prompt="What they show.",
            negative="What they do not show.",
            aspect="Width to height.",
            count="How many.",
            steps="Denoising steps; more is finer and slower.",
            guidance="How closely they follow the prompt.",
            seed="The same seed gives the same picture.",
            style="How they are drawn.",
            model="Which model draws them.",
            image="A picture to begin from.",
            enhance="Let the chat model add details first.",
            private="Only you see them.",
        )
        @app_commands.choices(aspect=[app_commands.Choice(name=ratio, value=ratio) for ratio in RATIOS])
        async def imagine(
            interaction: discord.Interaction,
            prompt: app_commands.Range[str, 1, 4000],
            negative: app_commands.Range[str, 0, 2000] = "",
            aspect: str = "1:1",
            count: app_commands.Range[int, 1, 4] = 1,
            steps: app_commands.Range[int, 1, 200] | None = None,
            guidance: app_commands.Range[float, 0.0, 30.0] | None = None,
            seed: app_commands.Range[int, 0, 2**53 - 1] | None = None,
            style: app_commands.Range[str, 1, 80] | None = None,
            model: app_commands.Range[str, 1, 100] | None = None,
            image: discord.Attachment | None = None,
            enhance: bool = False,
            private: bool = False,
        ) -> None:
            async def make(reply: ReplyTo) -> ImagePrompt:
                who = _who(interaction)
                options = _options(
                    aspect_ratio=aspect, n=count, num_inference_steps=steps or 0, guidance_scale=guidance, seed=seed,
                    style=style,
                )  # fmt: skip
                init = await self._picture(image, who) if image else None
                return ImagePrompt(
                    **who,
                    text=prompt,
                    negative_text=negative,
                    options=with_seed(options),
                    init_image=init,
                    enhance=enhance,
                    model=model,
                    reply=reply,
                    attachments=(image.filename,) if image else (),
                )

            await self._desk.take(interaction, make, private)

        @imagine.autocomplete("style")
        async def styles(interaction: discord.Interaction, typed: str) -> list[app_commands.Choice[str]]:
            recent = await self._desk.records.recent(handles.PLATFORM, str(interaction.user.id))
            names = dict.fromkeys([*STYLES, *(each.options.style or "" for each in recent)])
            return [app_commands.Choice(name=name, value=name) for name in names if name and typed.lower() in name][:25]

        @imagine.autocomplete("model")
        async def models(interaction: discord.Interaction, typed: str) -> list[app_commands.Choice[str]]:
            del interaction
            names = [name for name in await self._desk.client.models("image") if typed.lower() in name.lower()]
            return [app_commands.Choice(name=name, value=name) for name in names if len(name) <= _LONGEST_NAME_CHARS][
                :25
            ]

        return imagine

    def _show(self) -> app_commands.Command[Any, ..., Any]:
        @app_commands.command(name="show", description="Show a picture or a running job of yours again.")
        @app_commands.describe(id="Which one.")
        async def show(interaction: discord.Interaction, id: app_commands.Range[str, 1, 100]) -> None:  # noqa: A002 - what users see
            await self._shows.show(interaction, id.strip().strip("`"))

        @show.autocomplete("id")
        async def ids(interaction: discord.Interaction, typed: str) -> list[app_commands.Choice[str]]:
            recent = await self._desk.records.recent(handles.PLATFORM, str(interaction.user.id))
            choices = [(each.text[:_LONGEST_CHOICE_CHARS] or each.task, each.job_id) for each in recent]
            wanted = typed.lower()
            return [
                app_commands.Choice(name=name, value=job_id)
                for name, job_id in choices
                if wanted in name.lower() or wanted in job_id
            ][:25]

        return show

    def _forget(self) -> app_commands.Command[Any, ..., Any]:
        @app_commands.command(name="forget", description="Delete what is remembered of this conversation.")
        async def forget(interaction: discord.Interaction) -> None:
            await interaction.response.defer(thinking=True, ephemeral=True)
            who = _who(interaction)
            place = (who["tenant"], str(interaction.channel_id))
            if interaction.guild_id is None or is_moderator(interaction) or await self._own_thread(interaction):
                forgotten = await self._desk.conversations.forget(*place)
                forgotten |= bool(await self._privacy.forget_hand_overs(place[0], None, place[1].__eq__))
                text = "This conversation is forgotten." if forgotten else "There was nothing to forget."
            else:
                count = await self._desk.conversations.forget_author(*place, f"{handles.PLATFORM}:{who['user']}")
                people = await self._privacy.forget_hand_overs(place[0], who["user"], place[1].__eq__)
                text = (
                    f"Your {count} messages and their answers are forgotten. A moderator can forget the rest."
                    if count or people
                    else "Nothing of yours is remembered here."
                )
            await whisper(interaction, text)

        return forget

    def _help(self) -> app_commands.Command[Any, ..., Any]:
        @app_commands.command(name="help", description="What this bot can do.")
        async def show_help(interaction: discord.Interaction) -> None:
            await interaction.response.send_message(HELP, ephemeral=True)

        return show_help

    async def _own_thread(self, interaction: discord.Interaction) -> bool:
        channel = interaction.channel
        return isinstance(channel, discord.Thread) and channel.owner_id == interaction.user.id

    async def _picture(self, image: discord.Attachment, who: dict[str, Any]) -> str:
        data = await self._desk.attachments.picture(image)
        return await self._desk.client.put_artifact(data, tenant=who["tenant"], user=who["user"])


def _who(interaction: discord.Interaction) -> dict[str, Any]:
    """What prompts of every kind have in common."""
    return {
        "platform": handles.PLATFORM,
        "tenant": handles.tenant_of(interaction.guild_id, interaction.user.id),
        "channel": str(interaction.channel_id),
        "user": str(interaction.user.id),
        "key": f"i{interaction.id}",
    }


def _options(**values: Any) -> ImageOptions:
    try:
        return ImageOptions(**values)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
        raise ContractError(f"{fault['loc'][-1]} is not accepted: {fault['msg']}.") from None
