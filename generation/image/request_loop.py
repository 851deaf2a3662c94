"""What every image engine does alike: taking requests, deadlines, cancelling, handing out finished pictures."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

import torch

from generation.errors import DeadlineExceededError, GenerationError
from generation.image import starting
from generation.image.drawing import Drawing
from generation.image.finishing import Finishing, Print, Unfinished
from generation.image.pictures import MEDIA_TYPE
from generation.image.tiling import TileTooLargeError
from generation.types import EngineEvent, EngineInfo, Failed, Finished, ImageRequest, Picture


class RequestLoop(ABC):
    """An image engine but for the drawing itself; see ``generation.types.Engine``.

    Args:
        info: What runs here.
        finishing: From latents or pixels to encoded pictures.
    """

    def __init__(self, info: EngineInfo, finishing: Finishing) -> None:
        self._info = info
        self._finishing = finishing
        self._drawings: dict[str, Drawing] = {}
        self._events: list[EngineEvent] = []
        self._closed = False

    @property
    def info(self) -> EngineInfo:
        """What runs here."""
        return self._info

    @property
    def busy(self) -> bool:
        """Whether ``step`` has work."""
        return bool(self._events) or self._drawing or self._finishing.busy

    def submit(self, request: ImageRequest) -> None:
        """Take a request; it joins at the next step. What is wrong with it is reported by that step.

        Raises:
            ValueError: A request with this id is in flight.
        """
        if request.request_id in self._drawings:
            raise ValueError(f"A request with the id {request.request_id!r} is in flight already.")
        now_s = time.monotonic()
        drawing = Drawing(request, now_s, None if request.deadline_s is None else now_s + request.deadline_s)
        self._drawings[request.request_id] = drawing
        self._take(drawing)

    def cancel(self, request_id: str) -> None:
        """Forget a request; its place is free at once."""
        self._events = [event for event in self._events if event.request_id != request_id]
        drawing = self._drawings.pop(request_id, None)
        if drawing is not None:
            self._leave(drawing)

    def step(self) -> list[EngineEvent]:
        """Run one step for everything in flight."""
        self._expire()
        with torch.inference_mode():
            spent_s = self._advance()
            self._finish_pictures(spent_s)
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Release what is held; nothing is reported afterwards."""
        if self._closed:
            return
        self._closed = True
        for request_id in list(self._drawings):
            self.cancel(request_id)
        self._finishing.close()
        self._events.clear()

    @property
    @abstractmethod
    def _drawing(self) -> bool:
        """Whether anything is to be begun or denoised."""

    @abstractmethod
    def _take(self, drawing: Drawing) -> None:
        """Queue a new request."""

    @abstractmethod
    def _advance(self) -> float:
        """Denoise one step; returns the seconds it took, 0 where there was nothing to do."""

    @abstractmethod
    def _drop(self, drawing: Drawing) -> None:
        """Forget a request wherever it is."""

    def _enlarge(self, drawing: Drawing) -> None:
        """Start a request that draws nothing.

        Raises:
            InvalidRequestError: Its picture is missing, broken or too large.
        """
        pixels, factors = starting.enlargement(drawing.request)
        self._finishing.enlarge(Unfinished(drawing, 0, 0, None, factors), pixels[0].to(self._finishing.device))

    def _finish_pictures(self, budget_s: float) -> None:
        """Finish pictures for as long as the pass took: others' denoising is slowed to half at most."""
        started_s = time.monotonic()
        idle = budget_s == 0.0
        while self._finishing.busy:
            try:
                prints = self._finishing.step(wait=idle)
            except TileTooLargeError as error:
                picture = error.key
                assert isinstance(picture, Unfinished)  # noqa: S101 - the only keys there are
                self._fail(picture.drawing, error)
                continue
            for finished in prints:
                self._hand_out(finished)
            if idle or time.monotonic() - started_s >= budget_s:
                break

    def _hand_out(self, finished: Print) -> None:
        drawing, picture = finished.of.drawing, finished.of
        self._events.append(
            Picture(
                drawing.request_id,
                picture.index,
                finished.data,
                MEDIA_TYPE,
                finished.width_px,
                finished.height_px,
                picture.seed,
            )
        )
        drawing.first_s = drawing.first_s or time.monotonic()
        drawing.pictures_left -= 1
        if drawing.pictures_left == 0:
            del self._drawings[drawing.request_id]
            self._events.append(Finished(drawing.request_id, "stop", drawing.usage()))

    def _expire(self) -> None:
        now_s = time.monotonic()
        for drawing in [drawing for drawing in self._drawings.values() if drawing.expired(now_s)]:
            self._fail(
                drawing,
                DeadlineExceededError("The picture was not ready in time. Ask for fewer steps, fewer or smaller ones."),
            )

    def _fail(self, drawing: Drawing, error: GenerationError) -> None:
        del self._drawings[drawing.request_id]
        self._leave(drawing)
        self._events.append(Failed(drawing.request_id, error.code, str(error), error.retryable))

    def _leave(self, drawing: Drawing) -> None:
        self._drop(drawing)
        self._finishing.drop(lambda other: other is drawing)
