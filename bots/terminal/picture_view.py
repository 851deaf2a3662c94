"""Pictures inside a terminal: the whole picture where it can show one, coloured half-blocks elsewhere."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping

from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style

#: Of a picture, in cells; a cell is about twice as high as it is wide.
COLUMNS = 48
ROWS = 24
_UPPER_HALF = "▀"
_KITTY_CHUNK = 4_096


def protocol(environment: Mapping[str, str] = os.environ) -> str:
    """How this terminal takes whole pictures.

    Args:
        environment: Its variables.

    Returns:
        ``kitty``, ``iterm`` or, where it is not known to take any, an empty string.

    Source:
        https://sw.kovidgoyal.net/kitty/graphics-protocol/; https://iterm2.com/documentation-images.html
    """
    if environment.get("TMUX") or environment.get("TERM", "").startswith(("screen", "tmux")):
        return ""  # it does not pass them on
    program = environment.get("TERM_PROGRAM", "")
    if environment.get("KITTY_WINDOW_ID") or environment.get("TERM") in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    return "iterm" if program in ("iTerm.app", "WezTerm", "mintty") else ""


def escape_sequence(data: bytes, how: str, columns: int = COLUMNS) -> str:
    """What makes a terminal show a picture at the cursor.

    Args:
        data: Encoded; for ``kitty`` as PNG.
        how: From ``protocol``.
        columns: Its width in cells.
    """
    encoded = base64.b64encode(data).decode()
    if how == "iterm":
        return f"\x1b]1337;File=inline=1;size={len(data)};width={columns};preserveAspectRatio=1:{encoded}\a"
    pieces = [encoded[at : at + _KITTY_CHUNK] for at in range(0, len(encoded), _KITTY_CHUNK)]
    sequences = []
    for number, piece in enumerate(pieces):
        control = f"a=T,f=100,q=2,c={columns}," if number == 0 else ""
        sequences.append(f"\x1b_G{control}m={int(number < len(pieces) - 1)};{piece}\x1b\\")
    return "".join(sequences)


def half_blocks(data: bytes, columns: int = COLUMNS, rows: int = ROWS) -> Segments | None:
    """A picture in coloured characters, two pixels to a cell.

    Args:
        data: Encoded.
        columns: Most cells in width.
        rows: Most cells in height.

    Returns:
        Something that rich prints; None if it cannot be decoded here.
    """
    try:
        from PIL import Image  # not every machine with a terminal has it
    except ImportError:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
            scale = min(columns / picture.width, 2 * rows / picture.height)
            width = max(1, round(picture.width * scale))
            height = max(2, round(picture.height * scale) // 2 * 2)
            pixels = picture.convert("RGB").resize((width, height), Image.Resampling.BOX).tobytes()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    lines: list[Segment] = []
    for top in range(0, height, 2):
        for left in range(width):
            above, below = (pixels[3 * ((top + half) * width + left) :][:3] for half in (0, 1))
            lines.append(Segment(_UPPER_HALF, Style(color=_colour(above), bgcolor=_colour(below))))
        lines.append(Segment.line())
    return Segments(lines)


def show(console: Console, data: bytes) -> None:
    """Print a finished picture, if this is a terminal that shows colours."""
    if not console.is_terminal or console.color_system is None:
        return
    how = protocol()
    if how and (how != "kitty" or data.startswith(b"\x89PNG")):
        console.file.write(escape_sequence(data, how) + "\n")
        console.file.flush()
    elif blocks := half_blocks(data):
        console.print(blocks)


def _colour(pixel: bytes) -> str:
    return f"rgb({pixel[0]},{pixel[1]},{pixel[2]})"
