"""The demo's pictures: several people ask at once, and what they get is put on one sheet."""

from __future__ import annotations

import asyncio
import io
import math
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, ConsoleRenderable
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bots.settings import Settings
from bots.terminal import picture_files, picture_view
from bots.terminal.answer import AnswerError
from bots.terminal.drawing import Drawing
from bots.terminal.picture_files import PictureFile
from bots.terminal.session import Asker, Session, local_user
from workers.contract import ChatOptions, ImageOptions

#: Who asks for what; the last is "a red heart".
PROMPTS = (
    ("birch-guild", "a red apple"),
    ("birch-guild", "a yellow star on a blue background"),
    ("cedar-guild", "a smiling cat"),
    ("cedar-guild", "a sailing boat"),
    ("oak-workspace", "two green trees"),
    ("oak-workspace", "红色的心"),
)
_SEED = 7
_GAP_PX = 8
_REFRESH_HZ = 8
_BAR_COLUMNS = 24


async def exhibit(settings: Settings, console: Console) -> Path:
    """Draw all pictures at once and write them as one sheet.

    Args:
        settings: Where the queue is, and where the sheet goes.
        console: Where to show; off a terminal, as plain lines.

    Returns:
        The sheet's file.

    Raises:
        AnswerError: A picture was not drawn.
        FileError: The sheet cannot be written.
    """
    directory = settings.data_dir / "demo"
    picture_files.prepare(directory)
    console.print(f"\n{len(PROMPTS)} people ask for a picture at once:", markup=False)
    begun_s = time.monotonic()
    async with Session(settings, Asker("oak-workspace", local_user()), ChatOptions()) as first:
        sessions = [first.beside(Asker(tenant, f"user-{at}")) for at, (tenant, _) in enumerate(PROMPTS)]
        drawings = [
            await session.imagine(text, ImageOptions(seed=_SEED))
            for session, (_, text) in zip(sessions, PROMPTS, strict=True)
        ]
        await _follow_all(sessions, drawings, console)
        pictures = [await first.artifact(_image_of(drawing)) for drawing in drawings]
    took_s = time.monotonic() - begun_s
    sheet = await asyncio.to_thread(sheet_of, pictures)
    (path,) = picture_files.write(directory, [PictureFile("pictures", "image/png", sheet)])
    picture_view.show(console, sheet)
    first_s = min(drawing.first_preview_s or took_s for drawing in drawings)
    console.print(
        f"{len(pictures)} pictures in {took_s:.1f} s, the first preview after {first_s:.1f} s: {path}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return path


def sheet_of(pictures: Sequence[bytes]) -> bytes:
    """Several encoded pictures as one PNG, in as square a grid as there is, on white."""
    from PIL import Image  # not every machine with a terminal has it, but one that draws does

    opened = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    columns = math.ceil(math.sqrt(len(opened)))
    width, height = (max(picture.size[side] for picture in opened) + _GAP_PX for side in (0, 1))
    rows = math.ceil(len(opened) / columns)
    sheet = Image.new("RGB", (columns * width + _GAP_PX, rows * height + _GAP_PX), "white")
    for at, picture in enumerate(opened):
        sheet.paste(picture, (at % columns * width + _GAP_PX, at // columns * height + _GAP_PX))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


async def _follow_all(sessions: Sequence[Session], drawings: Sequence[Drawing], console: Console) -> None:
    async def follow(session: Session, drawing: Drawing) -> None:
        async for _ in session.follow(drawing):
            pass

    everybody = asyncio.gather(*(follow(*pair) for pair in zip(sessions, drawings, strict=True)))
    if console.is_terminal:
        with Live(console=console, refresh_per_second=_REFRESH_HZ, get_renderable=lambda: _bars(drawings)):
            await everybody
        return
    await everybody
    for (tenant, text), drawing in zip(PROMPTS, drawings, strict=True):
        console.print(f"  {tenant}, {text}: {drawing.status()}", markup=False, highlight=False, soft_wrap=True)


def _bars(drawings: Sequence[Drawing]) -> ConsoleRenderable:
    table = Table.grid(padding=(0, 1))
    for (tenant, text), drawing in zip(PROMPTS, drawings, strict=True):
        done, total = (1, 1) if drawing.event else (drawing.step, max(1, drawing.total_steps))
        table.add_row(
            f"  {tenant}", text, ProgressBar(total, done, width=_BAR_COLUMNS), Text(drawing.status(), style="dim")
        )
    return table


def _image_of(drawing: Drawing) -> str:
    """The id of its one picture."""
    if drawing.event is None or drawing.event.type != "finished":
        raise AnswerError(drawing.event) if drawing.event else RuntimeError("A drawing has no end.")
    return drawing.event.images[0].artifact_id
