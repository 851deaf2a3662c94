"""Search in what a tenant knows, at 100,000 passages: latency, and what the quantised first pass loses.

Passages are made from Debian's bilingual FAQ: each has the words of two of its sections, and vectors between those of
the two with noise, so that neighbourhoods are as crowded as those of real documents. Questions are the paraphrases of
``palaver evaluate answers``. SQLite and, where a wheel of PostgreSQL with pgvector is installed or ``--postgres`` names
an empty database, PostgreSQL get the same passages; they are asked in turn. Wall time is what a person waits; CPU time
is that of the searching process, and little disturbed by what else the machine does.

``recall`` is the share of the ten passages with the greatest exact cosine that the first pass hands on. The bit vectors
of sqlite-vec are searched beside ours for comparison.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pysqlite3 import dbapi2

from benchmarks.measuring import Row, report
from generation.data_dir import default_data_dir
from generation.evaluation import answers, faq
from generation.retrieval.bits import signs
from generation.retrieval.chunking import Chunk
from generation.retrieval.embedding import load_embedder
from generation.retrieval.knowledge import FIRST_PASS, Knowledge
from generation.retrieval.records import Embedded
from generation.retrieval.types import Document, Filters

PER_DOCUMENT = 50
KINDS = ("title", "lead", "passage")
NOISE = 0.35
TENANT = "bench"
Array = NDArray[np.float32]


@dataclass
class Passages:
    """What the passages are made of, and the vectors of all of them, to compare with."""

    texts: list[str]
    vectors: Array
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))
    words: random.Random = field(default_factory=lambda: random.Random(7))

    def document(self, number: int, count: int) -> tuple[Document, list[Chunk], Array]:
        chunks, rows = [], []
        for place in range(count):
            one, two = (int(each) for each in self.random.integers(0, len(self.texts), 2))
            words = self.texts[one].split(" ")[:60] + self.texts[two].split(" ")[:30]
            self.words.shuffle(words)
            text = " ".join(words)[:1200]
            name = f"{number}-{place}"
            chunks.append(Chunk(name, (name,), None, None, "en", text, tuple((kind, "") for kind in KINDS)))
            middle = 0.75 * self.vectors[one] + 0.25 * self.vectors[two]
            rows.append(middle + NOISE * self.random.normal(size=(len(KINDS), middle.size)) / middle.size**0.5)
        vectors = np.concatenate(rows).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        document = Document(f"d{number}", f"file:{number}", "file", f"Document {number}", None, "en", "", count, 0.0)
        return document, chunks, vectors


@contextmanager
def postgres_url(given: str | None) -> Iterator[str | None]:
    """The given database, or one of a server that lives as long as the benchmark; None where there is none."""
    from tests.postgres import PostgresProcess, binaries

    if given or binaries() is None:
        yield given
        return
    server = PostgresProcess()
    try:
        yield server.database()
    finally:
        server.remove()


def fill(stores: dict[str, Knowledge], passages: Passages, count: int) -> tuple[dict[str, float], Array]:
    """Give all stores the same passages; seconds that each took, and all vectors."""
    took_s = dict.fromkeys(stores, 0.0)
    held = []
    for number in range(count // PER_DOCUMENT):
        document, chunks, vectors = passages.document(number, PER_DOCUMENT)
        held.append(vectors)
        for name, knowledge in stores.items():
            began = time.perf_counter()
            rows = knowledge.store.tenant(TENANT)
            rows.put(document, chunks, [Embedded(knowledge.active_model(), vectors)])
            took_s[name] += time.perf_counter() - began
    return took_s, np.concatenate(held)


def exact_best(vectors: Array, question: Array) -> set[str]:
    """The ten passages with the greatest cosine."""
    best = (vectors @ question).reshape(-1, len(KINDS)).max(1)
    return {f"{row // PER_DOCUMENT}-{row % PER_DOCUMENT}" for row in np.argpartition(-best, 10)[:10].tolist()}


def first_pass(knowledge: Knowledge, question: Array) -> set[str]:
    with knowledge.store.tenant(TENANT).searching() as search:
        assert search is not None
        rows = search.nearest_chunks(knowledge.active_model(), question, FIRST_PASS, Filters())
        return {candidate.hit.chunk_id for candidate in search.candidates(rows, Filters())}


def sqlite_vec(vectors: Array, folder: Path) -> Callable[[Array], set[str]]:
    """The same vectors as bits in sqlite-vec."""
    import sqlite_vec as extension

    connection = dbapi2.connect(str(folder / "vec.sqlite"))
    connection.enable_load_extension(True)
    extension.load(connection)
    connection.execute("PRAGMA mmap_size=1073741824")
    connection.execute(f"CREATE VIRTUAL TABLE bits USING vec0(embedding bit[{vectors.shape[1]}])")
    bits = signs(vectors)
    rows = ((row + 1, each.tobytes()) for row, each in enumerate(bits))
    connection.executemany("INSERT INTO bits(rowid, embedding) VALUES (?, vec_bit(?))", rows)
    connection.commit()

    def search(question: Array) -> set[str]:
        found = connection.execute(
            "SELECT rowid FROM bits WHERE embedding MATCH vec_bit(?) AND k = ?",
            (signs(question[None])[0].tobytes(), FIRST_PASS),
        ).fetchall()
        chunks = [(row - 1) // len(KINDS) for (row,) in found]
        return {f"{chunk // PER_DOCUMENT}-{chunk % PER_DOCUMENT}" for chunk in chunks}

    return search


def timed(took: list[tuple[float, float]], call: Callable[[], object]) -> object:
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    took.append((time.perf_counter() - wall, time.process_time() - cpu))
    return result


def figures(took: list[tuple[float, float]]) -> dict[str, float]:
    walls, cpus = zip(*took, strict=True)
    return {
        "p50_ms": statistics.median(walls) * 1e3,
        "p99_ms": statistics.quantiles(walls, n=100)[98] * 1e3,
        "cpu_p50_ms": statistics.median(cpus) * 1e3,
        "cpu_p99_ms": statistics.quantiles(cpus, n=100)[98] * 1e3,
    }


def measure(stores: dict[str, Knowledge], questions: list[str], vectors: Array, folder: Path) -> list[Row]:
    encode = next(iter(stores.values())).embedder
    embedder = encode(next(iter(stores.values())).active_model())
    passes: dict[str, Callable[[Array], set[str]]] = {
        **{f"first pass: {name}": lambda question, of=of: first_pass(of, question) for name, of in stores.items()},
        "first pass: sqlite-vec bits": sqlite_vec(vectors, folder),
    }
    whole: dict[str, list[tuple[float, float]]] = {f"search: {name}": [] for name in stores}
    partly: dict[str, list[tuple[float, float]]] = {name: [] for name in passes}
    encoding: list[tuple[float, float]] = []
    recalled = dict.fromkeys(passes, 0)
    for question in [*questions[:5], *questions]:
        vector = timed(encoding, lambda question=question: embedder.encode([question])[0])
        wanted = exact_best(vectors, vector)
        for name, knowledge in stores.items():
            tenant = knowledge.tenant(TENANT)
            timed(whole[f"search: {name}"], lambda tenant=tenant, question=question: tenant.search(question))
        for name, search in passes.items():
            found = timed(partly[name], lambda search=search, vector=vector: search(vector))
            recalled[name] += len(wanted & found) if len(partly[name]) > 5 else 0
    rows = [Row(name, figures(took[5:])) for name, took in whole.items()]  # the first ones read what is kept in memory
    rows.append(Row("of it: the question's vector", figures(encoding[5:])))
    for name, took in partly.items():
        rows.append(Row(name, figures(took[5:]) | {"recall_%": recalled[name] / len(questions) * 10}))
    return rows


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument(
        "--postgres", help="URL of an empty database with pgvector; its own server is started otherwise"
    )
    parser.add_argument("--no-postgres", action="store_true")
    options = parser.parse_args()
    downloads = default_data_dir() / "downloads"
    entries = [entry for language in ("en", "zh") for entry in faq.entries(faq.pages(language, downloads))]
    embedder = load_embedder()
    passages = Passages(
        [entry.text for entry in entries],
        embedder.encode([f"{entry.question}\n{entry.text[:400]}" for entry in entries]),
    )
    asked = [entry["question"] for entry in json.loads(answers.QUESTIONS.read_text("utf-8"))["answerable"]]
    questions = [asked[number % len(asked)] for number in range(options.questions)]
    with tempfile.TemporaryDirectory() as name, postgres_url(options.postgres) as url:
        stores = {"SQLite": Knowledge(f"sqlite:///{Path(name) / 'k.sqlite'}", embedder)}
        if url and not options.no_postgres:
            stores["PostgreSQL"] = Knowledge(url, embedder)
        took_s, vectors = fill(stores, passages, options.chunks)
        rows = measure(stores, questions, vectors, Path(name))
        rows += [Row(f"put: {of}", {"chunks_per_s": options.chunks / seconds}) for of, seconds in took_s.items()]
        size = (Path(name) / "k.sqlite").stat().st_size / 2**20
        for knowledge in stores.values():
            knowledge.close()
    title = f"{options.chunks:,} chunks with {len(vectors):,} vectors; the file has {size:,.0f} MiB"
    report(title, rows, options.json)


if __name__ == "__main__":
    main()
