"""When people are there: ``Mon-Fri 09:00-17:00 Europe/Berlin``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = re.compile(r"(\w{3})(?:-(\w{3}))? (\d{1,2}):(\d{2})-(\d{1,2}):(\d{2}) ([\w+/-]+)", re.ASCII)
_WEEK = 8


@dataclass(frozen=True, slots=True)
class WorkingHours:
    """A range of days and of hours in a time zone.

    Attributes:
        days: 0 is Monday.
        begin: First minute.
        end: First minute after.
        zone: Where.
    """

    days: frozenset[int]
    begin: time
    end: time
    zone: ZoneInfo

    def open_at(self, now: datetime) -> bool:
        """Whether people are there at a moment."""
        local = now.astimezone(self.zone)
        return local.weekday() in self.days and self.begin <= local.time() < self.end

    def next_opening(self, now: datetime) -> datetime:
        """When people are there next, in their own time."""
        local = now.astimezone(self.zone)
        for later in range(_WEEK):
            day = local.date() + timedelta(days=later)
            opening = datetime.combine(day, self.begin, self.zone)
            if day.weekday() in self.days and opening > local:
                return opening
        return local


def parse(text: str) -> WorkingHours:
    """Read working hours.

    Raises:
        ValueError: It is not of the form.
    """
    found = _FORM.fullmatch(" ".join(text.split()))
    if not found:
        raise ValueError("not of the form Mon-Fri 09:00-17:00 Europe/Berlin")
    first, last, *numbers, zone = found.groups()
    begin, end = _DAYS.index(first.lower()), _DAYS.index((last or first).lower())
    days = frozenset((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    hours = [int(number) for number in numbers]
    opening, closing = time(hours[0], hours[1]), time(hours[2] % 24, hours[3]) if hours[2] < 24 else time.max
    if opening >= closing:
        raise ValueError("the hours end before they begin")
    try:
        return WorkingHours(days, opening, closing, ZoneInfo(zone))
    except (KeyError, OSError) as error:
        raise ValueError("there is no such time zone") from error
