"""How the product logs: one line a record on standard error, never a prompt, an answer or a secret at any level."""

import logging
import sys

from workers.log_format import LogFormat, formatter

#: Libraries that are chatty, or that log what they carry, below this level.
_QUIET = ("rq", "redis", "httpx", "httpcore", "asyncio", "filelock", "urllib3", "discord", "slack_bolt", "slack_sdk")


def configure(level: str, log_format: LogFormat = "text") -> None:
    """Log to standard error.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error`` for our own records; libraries stay at ``warning``
            whatever is asked, because some of them log arguments and payloads below it.
        log_format: For people or for machines.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(log_format))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("palaver").setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
