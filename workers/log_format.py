"""How a record is written: a line for people, or an object for machines; neither ever carries contents."""

from __future__ import annotations

import json
import logging
import os
import re
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: Our messages name the job that they are about in these words.
_JOB = re.compile(r"\b[Jj]ob ([A-Za-z0-9_-]+__[A-Za-z0-9_-]+)")


class JsonFormatter(logging.Formatter):
    """One JSON object a record, with ``job_id`` where it is about a job."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        message = record.getMessage()
        said = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
            "pid": os.getpid(),
        }
        job = _JOB.search(message)
        if job:
            said["job_id"] = job.group(1)
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


def formatter(name: LogFormat) -> logging.Formatter:
    """The formatter of a setting."""
    return JsonFormatter() if name == "json" else logging.Formatter(TEXT)


def configure(level: str, name: LogFormat) -> None:
    """Log to standard error from a child process.

    Args:
        level: Of all records.
        name: Which format.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(name))
    logging.basicConfig(level=level, handlers=[handler])
