"""Where an answer goes, as strings that travel with its job; names of tenants, users and conversations."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import discord

from workers.contract import ReplyTo

#: Names of tenants begin so.
PLATFORM = "discord"
#: Discord's own limit; a little earlier, so that nothing is on its way when the token ends.
TOKEN_LIFE_S = 15 * 60 - 20


@dataclass(frozen=True, slots=True)
class Handle:
    """Everything that is needed to answer, after a restart as well.

    Attributes:
        channel: Id of the channel.
        guild: Id of the guild, empty in direct messages.
        user: Id of whom to answer.
        message: Id of the message that is answered; empty for a command.
        token: Of the interaction, for as long as it lives; empty for a message.
        until: Unix seconds at which the token ends.
        private: ``1`` if only that user may see the answer.
        installed: ``1`` if the bot is a member there, so that it can go on with messages of its own.
        max_file_bytes: Largest file that the place takes.
    """

    channel: str
    guild: str
    user: str
    message: str = ""
    token: str = ""
    until: str = ""
    private: str = ""
    installed: str = ""
    max_file_bytes: str = str(10 * 2**20)

    def reply_to(self, front_end: str) -> ReplyTo:
        """For the job's request."""
        return ReplyTo(front_end=front_end, handle={name: value for name, value in asdict(self).items() if value})


def read(reply: ReplyTo) -> Handle | None:
    """What a job brings back; None if another release wrote it."""
    known = Handle.__dataclass_fields__
    try:
        return Handle(**{"guild": ""} | {name: value for name, value in reply.handle.items() if name in known})
    except TypeError:
        return None


def of_message(message: discord.Message, channel_id: int | None = None) -> Handle:
    """The handle of an answer to a message, or in the thread that was opened for it.

    Args:
        message: What is answered.
        channel_id: Of the thread, if one was opened.
    """
    return Handle(
        channel=str(channel_id or message.channel.id),
        guild=str(message.guild.id) if message.guild else "",
        user=str(message.author.id),
        message="" if channel_id else str(message.id),
        installed="1",
        max_file_bytes=str(message.guild.filesize_limit if message.guild else 10 * 2**20),
    )


def of_interaction(interaction: discord.Interaction, private: bool) -> Handle:
    """The handle of an answer to a command or a button."""
    member = interaction.is_guild_integration() and interaction.app_permissions.send_messages
    own_talk = interaction.guild_id is None and interaction.context.dm_channel
    return Handle(
        channel=str(interaction.channel_id or ""),
        guild=str(interaction.guild_id or ""),
        user=str(interaction.user.id),
        token=interaction.token,
        until=f"{interaction.created_at.timestamp() + TOKEN_LIFE_S:.0f}",
        private="1" if private else "",
        installed="1" if member or own_talk else "",
        max_file_bytes=str(interaction.filesize_limit),
    )


def tenant_of(guild_id: int | None, user_id: int) -> str:
    """Whose account: the guild's, or outside of guilds the user's own."""
    return f"{PLATFORM}-{guild_id}" if guild_id else f"{PLATFORM}-u{user_id}"
