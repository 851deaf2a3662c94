"""What Discord's errors mean for an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import discord

from bots.delivery.surface import ExpiredError, GoneError, SlowDownError, SurfaceError

_UNKNOWN_WEBHOOK = 10015
_UNKNOWN_INTERACTION = 10062
_INVALID_TOKEN = 50027
#: A bot that somebody has installed for themselves alone may follow up five times.
_NO_MORE_FOLLOW_UPS = 40094
_EDITED_TOO_OFTEN = 30046
_TOO_LARGE = 40005
_NO_REPLIES = 160002
_DEFAULT_PAUSE_S = 5.0


class TooLargeError(SurfaceError):
    """The files are larger than the place takes."""


class CannotReplyError(SurfaceError):
    """The bot may write there, but not read the history, which a reply needs."""


@contextmanager
def mapped() -> Iterator[None]:
    """Turn the library's errors into what surfaces raise; others pass and are tried again."""
    try:
        yield
    except discord.RateLimited as error:
        raise SlowDownError(error.retry_after) from None
    except discord.HTTPException as error:
        raise _meaning(error) or error from None


def _meaning(error: discord.HTTPException) -> SurfaceError | None:
    if error.status == 429 or error.code == _EDITED_TOO_OFTEN:
        return SlowDownError(_pause_s(error))
    if error.code in (_INVALID_TOKEN, _UNKNOWN_WEBHOOK, _UNKNOWN_INTERACTION, _NO_MORE_FOLLOW_UPS):
        return ExpiredError("the interaction's token has ended, or takes no more messages")
    if error.code == _TOO_LARGE or error.status == 413:
        return TooLargeError("the files are too large")
    if error.code == _NO_REPLIES:
        return CannotReplyError("the history may not be read")
    if error.status in (403, 404):
        return GoneError(f"{error.status}, code {error.code}")
    return None


def _pause_s(error: discord.HTTPException) -> float:
    try:
        return float(error.response.headers.get("Retry-After", _DEFAULT_PAUSE_S))
    except ValueError:
        return _DEFAULT_PAUSE_S
