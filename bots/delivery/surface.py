"""What a chat platform must be able to do for one job's answer, and how it says no.

A front-end makes a ``Surface`` of the reply handle that travelled with the job, in whatever process: after a restart
the handle is all there is. Everything its library raises is mapped to one of the errors below; any other exception
counts as a passing failure and is tried again.
"""

from __future__ import annotations

from typing import Protocol

from bots.delivery.content import View
from bots.delivery.ledger import Place
from bots.delivery.pacing import Budget
from bots.delivery.rollover import Life
from bots.delivery.splitting import Measure


class SurfaceError(Exception):
    """Root of what a surface says."""


class SlowDownError(SurfaceError):
    """The platform refused a message for now.

    Args:
        retry_after_s: When it may be tried again.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the platform asks to wait {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class GoneError(SurfaceError):
    """The message or its channel was deleted, or the bot may not write there: nothing more can be shown."""


class ExpiredError(SurfaceError):
    """The way of answering has run out, such as an interaction's token or a stream: ``fallback`` is the next one."""


class Surface(Protocol):
    """One place for one job's answer."""

    @property
    def limit(self) -> int:
        """Longest message, in the unit of ``measure``."""
        ...

    @property
    def measure(self) -> Measure:
        """How the platform counts."""
        ...

    @property
    def budget(self) -> Budget:
        """What may be sent there, shared by everything that goes to the same place."""
        ...

    async def announce(self, view: View) -> bool:
        """Show something that is not the end without a message, where the platform has another place for it.

        Args:
            view: What would be posted as the first message of its place.

        Returns:
            Whether that is enough for now; otherwise it is posted.
        """
        ...

    async def post(self, view: View, place: Place) -> str:
        """Post the message of a place; the first may be one that the platform already shows as a placeholder.

        Args:
            view: What to show.
            place: Its place. With ``reserved_before`` an earlier process may have posted it: the same nonce must give
                the same message, or the surface must look for it before it posts another.

        Returns:
            The platform's id of the message.
        """
        ...

    async def edit(self, message_id: str, view: View) -> None:
        """Make a message show something else."""
        ...

    async def delete(self, message_id: str) -> None:
        """Delete a message; one that is gone already is no error."""
        ...

    def life(self, message_id: str) -> Life:
        """How long a message can still grow as it does, where it is shown in a way that has an end."""
        ...

    def fallback(self) -> Surface | None:
        """Where the answer goes when this way has expired; its places are new ones. None if there is no other."""
        ...
