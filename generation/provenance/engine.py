"""An engine around an image engine that marks every finished picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from generation.errors import GenerationError
from generation.provenance.credentials import Certificate, Signer
from generation.provenance.label import check_font
from generation.provenance.marking import Marking, mark
from generation.provenance.types import PUBLIC_KEY, Provenance, hash_prompt
from generation.types import Engine, EngineEvent, EngineInfo, Failed, Finished, ImageRequest, Picture

Progress = Callable[[str, float | None], None]

#: Where a worker's options carry those of marking.
OPTION = "provenance"


class MarkingEngine:
    """Marks the pictures of another engine; see ``generation.types.Engine``.

    Args:
        inner: What draws.
        marking: How pictures are marked.
        producer: Who runs the service.
    """

    def __init__(self, inner: Engine[ImageRequest], marking: Marking, producer: str = "Palaver") -> None:
        self._inner = inner
        self._marking = marking
        self._producer = producer
        self._requests: dict[str, ImageRequest] = {}

    @property
    def info(self) -> EngineInfo:
        """What runs here."""
        return self._inner.info

    @property
    def busy(self) -> bool:
        """Whether ``step`` has work."""
        return self._inner.busy

    def submit(self, request: ImageRequest) -> None:
        """Take a request; errors are those of the inner engine."""
        self._inner.submit(request)
        self._requests[request.request_id] = request

    def cancel(self, request_id: str) -> None:
        """Forget a request."""
        self._requests.pop(request_id, None)
        self._inner.cancel(request_id)

    def step(self) -> list[EngineEvent]:
        """Run one step; no picture leaves without its mark."""
        events: list[EngineEvent] = []
        for event in self._inner.step():
            match event:
                case Picture() if event.request_id in self._requests:
                    events.append(self._marked(event, self._requests[event.request_id]))
                case Picture():
                    continue  # of a request whose marking failed
                case Finished() | Failed():
                    if self._requests.pop(event.request_id, None) is not None:
                        events.append(event)
                case _:
                    events.append(event)
        return events

    def close(self) -> None:
        """Release what is held; idempotent."""
        self._requests.clear()
        self._inner.close()

    def _marked(self, picture: Picture, request: ImageRequest) -> Picture | Failed:
        provenance = Provenance(
            job_id=request.origin.job_id if request.origin else request.request_id,
            model=self.info.model,
            prompt_sha256=hash_prompt(request.prompt),
            created_at_s=round(time.time(), 3),
            producer=self._producer,
        )
        policy = request.origin.policy if request.origin else None
        # A community can have a label where the operator has none, or its own words; not none where the operator has.
        marking = (
            replace(self._marking, visible_label=policy.picture_label) if policy and policy.picture_label else None
        )
        try:
            return replace(picture, data=mark(picture.data, provenance, marking or self._marking))
        except GenerationError as error:
            self.cancel(picture.request_id)
            return Failed(picture.request_id, error.code, str(error), error.retryable)


def marked(
    build: Callable[[dict[str, object], Progress], Engine[ImageRequest]],
    options: dict[str, object],
    progress: Progress,
) -> Engine[ImageRequest]:
    """Build an image engine and put marking around it, unless the options have none.

    Args:
        build: Makes the engine from its own options.
        options: Those, and under ``provenance``: ``watermark``, ``key``, ``visible_label``, ``label_font``,
            ``certificate_file``, ``key_file``, ``algorithm`` and ``producer``.
        progress: Told what is being done.

    Raises:
        GenerationError: An option is wrong, or the engine cannot be built.
    """
    own = dict(options)
    wanted: Any = own.pop(OPTION, None)
    if not isinstance(wanted, dict):
        return build(own, progress)
    signer = None
    if wanted.get("certificate_file") and wanted.get("key_file"):
        files = (Path(wanted["certificate_file"]), Path(wanted["key_file"]))
        signer = Signer(Certificate(*files, wanted.get("algorithm") or "es256"))
    font = Path(wanted["label_font"]) if wanted.get("label_font") else None
    check_font(font)
    marking = Marking(
        watermark=bool(wanted.get("watermark", True)),
        key=wanted.get("key") or PUBLIC_KEY,
        visible_label=wanted.get("visible_label") or "",
        label_font=font,
        signer=signer,
    )
    return MarkingEngine(build(own, progress), marking, wanted.get("producer") or "Palaver")
