"""One table of everything that was measured last: on the terminal, as CSV, and its ratios as a plot.

Run ``python -m benchmarks.table [--out benchmarks/out]`` after ``python -m benchmarks``. A ratio is a figure over
that of the benchmark's first row with the same name, so that it says how alternatives compare within one run.
"""

from __future__ import annotations

import argparse
import csv
import html
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "out"


@dataclass(frozen=True)
class Line:
    """One figure of one row of one benchmark; ``ratio`` is to the first row that has it."""

    benchmark: str
    row: str
    figure: str
    value: float
    ratio: float | None


def read(folder: Path) -> list[Line]:
    """Everything that lies there as JSON."""
    lines: list[Line] = []
    for file in sorted(folder.glob("*.json")):
        data = json.loads(file.read_text())
        rows = data["rows"] if isinstance(data, dict) and "rows" in data else data if isinstance(data, list) else [data]
        first: dict[str, float] = {}
        for row in rows:
            name, figures = _figures(row)
            for figure, value in figures.items():
                base = first.setdefault(figure, value)
                lines.append(Line(file.stem, name, figure, value, value / base if base else None))
    return lines


def _figures(row: dict[str, Any]) -> tuple[str, dict[str, float]]:
    """A row's name and its numbers, whether it is a ``measuring.Row`` or a flat record."""
    values = row["figures"] if isinstance(row.get("figures"), dict) else row
    numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    words = [str(value) for name, value in row.items() if isinstance(value, str) and name != "figures"]
    if row is values and "users" in numbers:
        words.append(f"{numbers.pop('users'):.0f} users")
    return " ".join(words) or "-", numbers


def show(lines: list[Line]) -> None:
    widths = [max(len(getattr(line, name)) for line in lines) for name in ("benchmark", "row", "figure")]
    for line in lines:
        cells = [text.ljust(width) for text, width in zip((line.benchmark, line.row, line.figure), widths, strict=True)]
        ratio = "" if line.ratio is None else f"{line.ratio:10.3f}"
        print("  ".join(cells), f"{line.value:16,.3f}", ratio)


def write_csv(lines: list[Line], file: Path) -> None:
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["benchmark", "row", "figure", "value", "ratio_to_first_row"])
        writer.writerows([line.benchmark, line.row, line.figure, line.value, line.ratio] for line in lines)


def plot(lines: list[Line], file: Path) -> None:
    """Bars of all ratios that are not 1 by definition, on a logarithmic axis, as SVG: it needs no library."""
    bars = [(line, line.ratio) for line in lines if line.ratio and line.ratio > 0 and line.ratio != 1]
    longest = max((abs(math.log10(ratio)) for _, ratio in bars), default=1.0)
    middle, unit, parts = 760, 230 / longest, []
    for at, (line, ratio) in enumerate(bars):
        y, length = 16 * at + 24, math.log10(ratio) * unit
        label = html.escape(f"{line.benchmark}: {line.row[:44]}, {line.figure}")
        parts.append(f'<text x="500" y="{y + 9}" text-anchor="end">{label}</text>')
        parts.append(f'<rect x="{middle + min(0, length):.1f}" y="{y}" width="{abs(length):.1f}" height="10"/>')
        parts.append(f'<text x="1000" y="{y + 9}">{ratio:.2f}</text>')
    height = 16 * len(bars) + 30
    parts.append(f'<line x1="{middle}" y1="16" x2="{middle}" y2="{height}" stroke="black"/>')
    parts.append('<text x="500" y="12" text-anchor="end">ratio to the first row of the same benchmark</text>')
    style = "<style>text{font:10px sans-serif}rect{fill:#47a}</style>"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="1050" height="{height}">{style}'
    file.write_text("\n".join([head, *parts, "</svg>\n"]))


def main(folder: Path = OUT) -> None:
    lines = read(folder)
    if not lines:
        print(f"nothing was measured yet: there is no JSON in {folder}")
        return
    show(lines)
    write_csv(lines, folder / "table.csv")
    plot(lines, folder / "ratios.svg")
    print(f"{folder / 'table.csv'}, {folder / 'ratios.svg'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    main(parser.parse_args().out)
