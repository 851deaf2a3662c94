"""The Lua scripts, one file each under ``lua/``, read once and run by their hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis
    import redis.asyncio

    SyncClient = redis.Redis | redis.client.Pipeline
    AsyncClient = redis.asyncio.Redis | redis.asyncio.client.Pipeline

Argument = str | int | float | bytes


@dataclass(frozen=True, slots=True)
class LuaScript:
    """One atomic operation on the server.

    ``run`` sends the hash alone and the text only to a server that has forgotten it. ``queue`` always sends the
    text: inside a MULTI an unknown hash would fail alone while its neighbours are applied.

    Args:
        text: The source.
        sha: Its SHA-1, under which the server caches it.
    """

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)

    def run(self, client: redis.Redis, keys: Sequence[str], args: Sequence[Argument] = ()) -> Any:
        """Run it now.

        Returns:
            What the script returned, converted by redis-py.
        """
        try:
            return client.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return client.eval(self.text, len(keys), *keys, *args)

    async def run_async(self, client: redis.asyncio.Redis, keys: Sequence[str], args: Sequence[Argument] = ()) -> Any:
        """Run it now, on an asyncio client."""
        try:
            return await cast("Any", client.evalsha(self.sha, len(keys), *keys, *args))
        except NoScriptError:
            return await cast("Any", client.eval(self.text, len(keys), *keys, *args))

    def queue(self, client: SyncClient | AsyncClient, keys: Sequence[str], args: Sequence[Argument] = ()) -> Any:
        """Append it to a pipeline or MULTI; on a plain client it runs at once (to be awaited if asynchronous)."""
        return client.eval(self.text, len(keys), *keys, *args)


@cache
def load(*names: str) -> LuaScript:
    """The script made of these files of ``workers/lua``, in order: shared functions first."""
    folder = resources.files("workers") / "lua"
    text = "\n".join((folder / f"{name}.lua").read_text(encoding="utf-8") for name in names)
    # Comments are for us: a MULTI carries the text of its scripts.
    lines = (line.partition("-- ")[0].strip() for line in text.splitlines())
    return LuaScript("\n".join(line for line in lines if line))
