"""Which pictures are in the next forward pass."""

from __future__ import annotations

from collections import deque

from generation.image.drawing import Drawing, Sample

#: Successful passes after which limits that were halved for lack of memory are doubled again.
_RECOVERY_STEPS = 64


class Scheduler:
    """Waiting drawings and active ones; a pass is made of pictures whose drawings have one key.

    Passes are shared by start-time fair queuing: each drawing has a virtual time that grows with the pictures it had
    in passes, and the one that is behind goes first. So a request for eight pictures does not push one for a single
    picture aside, and no size of picture starves another.

    Args:
        pixels: Most pixels of one pass: pictures times their size. A single picture is always possible.

    Source: Goyal, Vin and Cheng, "Start-time Fair Queuing", 1996.
    """

    def __init__(self, pixels: int) -> None:
        self.waiting: deque[Drawing] = deque()
        self.active: list[Drawing] = []
        self._pixels = self._limit_pixels = pixels
        self._virtual = 0.0
        self._good_steps = 0

    @property
    def busy(self) -> bool:
        """Whether anything is to be begun or denoised."""
        return bool(self.waiting or self.active)

    @property
    def full(self) -> bool:
        """Whether active pictures fill a pass already."""
        return sum(drawing.size.pixels * len(_undone(drawing)) for drawing in self.active) >= self._limit_pixels

    def join(self, drawing: Drawing) -> None:
        """Let a drawing take part from the next pass on."""
        drawing.served = max(self._virtual, min((other.served for other in self.active), default=self._virtual))
        self.active.append(drawing)

    def remove(self, drawing: Drawing) -> None:
        """Take a drawing out wherever it is."""
        if drawing in self.waiting:
            self.waiting.remove(drawing)
        if drawing in self.active:
            self.active.remove(drawing)

    def pick(self) -> list[Sample]:
        """The pictures of the next pass; empty when nothing is active."""
        if not self.active:
            return []
        first = min(self.active, key=lambda drawing: drawing.served)
        self._virtual = first.served
        left = {
            drawing: sorted(_undone(drawing), key=lambda sample: -sample.position)
            for drawing in self.active
            if drawing.key == first.key
        }
        most = max(1, self._limit_pixels // max(1, first.size.pixels))
        picked: list[Sample] = []
        while left and len(picked) < most:
            drawing = min(left, key=lambda drawing: drawing.served)
            picked.append(left[drawing].pop())
            drawing.served += first.size.pixels
            if not left[drawing]:
                del left[drawing]
        return picked

    def retire(self, drawing: Drawing) -> None:
        """Let a drawing go once all its pictures are denoised."""
        if not _undone(drawing):
            self.active.remove(drawing)

    def shed(self, pictures: int, pixels: int) -> None:
        """Answer to a lack of memory: from now on passes of half as many pictures of that size."""
        self._good_steps = 0
        self._limit_pixels = max(1, pictures // 2) * pixels

    def commit(self) -> None:
        """Note that a pass went well; after a long while of these, allow twice as much again."""
        self._good_steps += 1
        if self._good_steps >= _RECOVERY_STEPS:
            self._good_steps = 0
            self._limit_pixels = min(self._pixels, 2 * self._limit_pixels)


def _undone(drawing: Drawing) -> list[Sample]:
    return [sample for sample in drawing.samples if not sample.done]
