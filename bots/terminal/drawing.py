"""Pictures as a terminal sees them come."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from bots.service import Enhanced, Update
from workers.client import Ended, ImageProgress, Queued, Restarted
from workers.contract import Event, UsageReport


@dataclass(slots=True)
class Drawing:
    """What is known of one image job.

    Attributes:
        job_id: Whose.
        asked_s: Monotonic time of asking.
        queued: Latest place in a queue, None once it runs.
        enhanced: What is drawn, if the chat model has added details.
        step: Denoising steps done.
        total_steps: Of all, 0 while unknown.
        preview: Newest preview, encoded.
        first_preview_s: Seconds from asking to the first preview.
        event: The terminal event, once it has come.
        ended_s: Monotonic time of the end.
        restarts: How often it began anew.
    """

    job_id: str
    asked_s: float = field(default_factory=time.monotonic)
    queued: Queued | None = None
    enhanced: str | None = None
    step: int = 0
    total_steps: int = 0
    preview: bytes | None = None
    first_preview_s: float | None = None
    event: Event | None = None
    ended_s: float = 0.0
    restarts: int = 0

    def take(self, update: Update) -> None:
        """Apply what ``follow`` told."""
        match update:
            case Queued():
                self.queued = update
            case Enhanced(text):
                self.queued, self.enhanced = None, text
            case ImageProgress(step, total_steps, preview):
                self.queued, self.step, self.total_steps = None, step, total_steps
                self.preview = preview or self.preview
                if preview and self.first_preview_s is None:
                    self.first_preview_s = time.monotonic() - self.asked_s
            case Restarted():
                self.step, self.preview = 0, None
                self.restarts += 1
            case Ended(event):
                self.queued, self.event, self.ended_s = None, event, time.monotonic()

    @property
    def usage(self) -> UsageReport:
        """What it took; zeros until the end."""
        return (self.event and self.event.usage) or UsageReport()

    def status(self) -> str:
        """One line: where it stands, or how it ended."""
        if self.event is None:
            return self._under_way()
        if self.event.type == "cancelled":
            return "stopped"
        if self.event.type != "finished":
            return self.event.type
        number = len(self.event.images)
        size = f" of {self.event.images[0].width_px} x {self.event.images[0].height_px} px" if number else ""
        took_s = self.ended_s - self.asked_s
        return f"{number} picture{'' if number == 1 else 's'}{size} in {took_s:.1f} s"

    def _under_way(self) -> str:
        if self.queued is not None:
            eta = f", about {self.queued.eta_s:.0f} s" if self.queued.eta_s is not None else ""
            return f"{self.queued.position} before this one{eta}" if self.queued.position else f"next in the queue{eta}"
        if self.total_steps and self.step >= self.total_steps:
            return "finishing"
        return "drawing" if self.step else "starting"
