"""Commands are registered with Discord only when their definition has changed: registrations a day are limited."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import discord
from discord import app_commands
from redis.asyncio import Redis

from workers import keys
from workers.redis_connection import mapped_errors

_log = logging.getLogger("palaver.discord")


async def sync(tree: app_commands.CommandTree[Any], redis: Redis, application_id: int) -> bool:
    """Register the commands if need be; should Discord refuse, the bot runs on with those that it knows.

    Returns:
        Whether they were registered now.
    """
    definition = json.dumps([command.to_dict(tree) for command in tree.get_commands()], sort_keys=True)
    digest = hashlib.sha256(definition.encode()).hexdigest()
    key = keys.commands(str(application_id))
    with mapped_errors(redis):
        if await redis.get(key) == digest.encode():
            return False
    try:
        await tree.sync()
    except discord.HTTPException as error:
        _log.warning("the commands cannot be registered: code %d; they are tried again at the next start", error.code)
        return False
    with mapped_errors(redis):
        await redis.set(key, digest, ex=keys.COMMANDS_TTL_S)
    _log.info("the commands are registered")
    return True
