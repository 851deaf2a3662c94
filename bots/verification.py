"""Where a picture came from, found out in a process of its own: the event loop waits for nothing but its answer."""

from __future__ import annotations

import asyncio
import json
import sys

from bots.settings import Settings
from generation.provenance.types import PUBLIC_KEY
from workers.errors import WorkersError

_TIMEOUT_S = 60.0
_AT_ONCE = 2
#: Pictures of one message that are looked at.
MOST_PICTURES = 4
NO_PICTURE = "There is no picture in that message. PNG, JPEG and WebP can be looked at."
_FAILED = "The picture could not be looked at."


class VerificationError(WorkersError):
    """A picture cannot be looked at."""

    code = "bad_picture"
    exit_code = 65


class Verifier:
    """Looks at pictures, a few at once.

    Args:
        settings: The key of the marks.
    """

    def __init__(self, settings: Settings) -> None:
        own = settings.provenance.key
        self._keys = [PUBLIC_KEY, *((own.get_secret_value(),) if own else ())]
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def told(self, picture: bytes) -> list[str]:
        """Where a picture came from, in sentences, the conclusion first.

        Raises:
            VerificationError: It is no picture, or too large to look at.
        """
        order = json.dumps({"keys": self._keys}).encode() + b"\n" + picture
        async with self._free:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "generation.provenance.picture_check"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    out, _ = await process.communicate(order)
            except TimeoutError:
                raise VerificationError(_FAILED) from None
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode:
            raise VerificationError(_FAILED)
        answer = json.loads(out)
        if "error" in answer:
            raise VerificationError(answer["error"])
        return [str(line) for line in answer["lines"]]
