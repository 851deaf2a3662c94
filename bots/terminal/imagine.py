"""Pictures for one prompt: progress on standard error, the files' names on standard output."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bots.terminal import picture_files, picture_view
from bots.terminal.answer import AnswerError, printable
from bots.terminal.drawing import Drawing
from bots.terminal.interrupts import stopped_by_interrupt
from bots.terminal.notice import Notice
from bots.terminal.picture_files import PictureFile
from bots.terminal.session import Session

_REFRESH_HZ = 8
_BAR_COLUMNS = 32
_PREVIEW_ROWS = 16


@dataclass(frozen=True, slots=True)
class Saved:
    """One picture and where it is now.

    Attributes:
        path: Its file.
        data: Its bytes.
        seed: With it, the picture is drawn again.
        width_px: Width.
        height_px: Height.
    """

    path: Path
    data: bytes
    seed: int
    width_px: int
    height_px: int


async def imagine_once(session: Session, drawing: Drawing, name: str, directory: Path, as_json: bool) -> None:
    """Follow a job to its end and write its pictures.

    Args:
        session: Who asks.
        drawing: What was asked.
        name: What the files' names begin with: the prompt.
        directory: Where the files go.
        as_json: Whether to write one JSON object a line instead of the files' names.

    Raises:
        AnswerError: It ended without pictures.
        FileError: The files cannot be written.
        KeyboardInterrupt: Ctrl-C has stopped it.
    """
    console = Console(stderr=True, highlight=False)
    tell = _json_teller(drawing) if as_json else lambda: None
    async with stopped_by_interrupt(session, drawing) as interrupted:
        await watch(session, drawing, console, tell)
    event = drawing.event
    if event and event.type in ("failed", "refused"):
        if as_json:
            _put(drawing, event.type, failure=event.failure.model_dump() if event.failure else None)
        raise AnswerError(event)
    if event is None or event.type != "finished":
        if as_json and event:
            _put(drawing, event.type)
        raise KeyboardInterrupt
    saved = await save(session, drawing, name, directory)
    if as_json:
        files = [
            {"path": str(each.path), "seed": each.seed, "width_px": each.width_px, "height_px": each.height_px}
            for each in saved
        ]
        _put(drawing, "finished", files=files, usage=drawing.usage.model_dump())
    else:
        for each in saved:
            picture_view.show(console, each.data)
        sys.stdout.write("".join(f"{each.path}\n" for each in saved))
        sys.stdout.flush()
        if console.is_terminal:
            console.print(Text(drawing.status(), style="dim"))
    if interrupted.is_set():
        raise KeyboardInterrupt


async def watch(session: Session, drawing: Drawing, console: Console, tell: Callable[[], None] = lambda: None) -> None:
    """Show a job while it is drawn: bar and preview on a terminal, a line a change elsewhere.

    Args:
        session: Who asks.
        drawing: What was asked; it is kept up to date.
        console: Where to show.
        tell: Called after every change.
    """
    if console.is_terminal:
        with Live(console=console, refresh_per_second=_REFRESH_HZ, transient=True) as live:
            async for _ in session.follow(drawing):
                live.update(_view(drawing, console))
                tell()
        if drawing.enhanced:
            console.print(Text(printable(drawing.enhanced), style="italic"))
        return
    with Notice() as notice:
        async for _ in session.follow(drawing):
            if drawing.event is None:
                notice.say(drawing.status())
            tell()


async def save(session: Session, drawing: Drawing, name: str, directory: Path) -> list[Saved]:
    """Fetch the pictures of a finished job and write them, all or none.

    Raises:
        ArtifactNotFoundError: They have expired.
        FileError: They cannot be written.
    """
    images = drawing.event.images if drawing.event else ()
    data = await asyncio.gather(*(session.artifact(image.artifact_id) for image in images))
    files = [
        PictureFile(picture_files.name_of(name, image.seed), image.media_type, each)
        for image, each in zip(images, data, strict=True)
    ]
    paths = await asyncio.to_thread(picture_files.write, directory, files)
    return [
        Saved(path, each, image.seed, image.width_px, image.height_px)
        for path, each, image in zip(paths, data, images, strict=True)
    ]


def _view(drawing: Drawing, console: Console) -> ConsoleRenderable:
    parts: list[ConsoleRenderable] = []
    if drawing.enhanced:
        parts.append(Text(printable(drawing.enhanced), style="italic"))
    if drawing.preview and console.color_system is not None:
        rows = min(_PREVIEW_ROWS, max(2, console.height - 4))
        blocks = picture_view.half_blocks(drawing.preview, min(2 * rows, console.width), rows)
        parts += [blocks] if blocks else []
    row = Table.grid(padding=(0, 1))
    status = Text(f"{drawing.status()}; Ctrl-C stops", style="dim")
    if drawing.total_steps:
        bar = ProgressBar(drawing.total_steps, drawing.step, width=_BAR_COLUMNS)
        row.add_row(bar, Text(f"step {drawing.step} of {drawing.total_steps}"), status)
    else:
        row.add_row(status)
    return Group(*parts, row)


def _json_teller(drawing: Drawing) -> Callable[[], None]:
    """Writes what has changed since it was called last."""
    told: dict[str, object] = {"restarts": 0, "step": 0}
    _put(drawing, "submitted")

    def new(name: str) -> bool:
        value = getattr(drawing, name)
        changed = bool(value) and told.get(name) != value
        told[name] = value
        return changed

    def tell() -> None:
        if new("queued") and drawing.queued:
            _put(drawing, "queued", ahead=drawing.queued.position, eta_s=drawing.queued.eta_s)
        if new("enhanced"):
            _put(drawing, "enhanced", prompt=drawing.enhanced)
        if new("restarts"):
            _put(drawing, "restarted")
        if new("step"):
            _put(drawing, "progress", step=drawing.step, total_steps=drawing.total_steps)

    return tell


def _put(drawing: Drawing, kind: str, **fields: object) -> None:
    line = json.dumps({"type": kind, "job_id": drawing.job_id, **fields}, ensure_ascii=False)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
