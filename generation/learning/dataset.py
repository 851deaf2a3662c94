"""The data set on disk: pictures, captions and splits, made once and read through memory maps.

pictures.npy    (pictures, side, side, 3) uint8; the side is 64 px times the recipe's scale
records.json    for each picture: kind, split, style, code of its first thing, indices of its captions
captions.json   texts: English ones first, then Chinese ones
manifest.json   sources, licences, credits, counts; its ``fingerprint`` says from what and by which rules it was made
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generation.learning import drawing, scenes
from generation.learning.concepts import STYLES, Concept, Credit, Icon
from generation.learning.scenes import CANVAS_PX, Composer, Kind, Scene, Split

log = logging.getLogger("palaver.learning.dataset")

# Raise it when the same sources should give other pictures or captions.
RULES_VERSION = 1


@dataclass(frozen=True, slots=True)
class Mix:
    """How many scenes of each composed kind to make; single pictures are made of every icon.

    Args:
        background: One thing on a coloured background.
        recolour: One thing in a colour of our choice.
        place: A small thing somewhere.
        count: Two to four of a thing.
        pair: Two things and how they stand to each other.
        seed: Of the choices.
    """

    background: int
    recolour: int
    place: int
    count: int
    pair: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """One picture's description.

    Args:
        kind: What the picture teaches.
        split: What it may be used for.
        style: Index into the styles.
        code: Of its first thing's concept.
        captions: Indices into the data set's captions.
    """

    kind: Kind
    split: Split
    style: int
    code: str
    captions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DataSet:
    """Pictures with captions.

    Args:
        pictures: ``(pictures, side, side, 3) uint8``, usually a memory map.
        records: One for each picture.
        captions: Texts, the English ones first.
        english: How many captions are English.
        fingerprint: Changes whenever the content does.
    """

    pictures: NDArray[np.uint8]
    records: tuple[Record, ...]
    captions: tuple[str, ...]
    english: int
    fingerprint: str

    def indices(self, split: Split, kind: Kind | None = None) -> NDArray[np.int64]:
        """Positions of the pictures of a split, and of one kind if given."""
        chosen = [
            position
            for position, record in enumerate(self.records)
            if record.split == split and (kind is None or record.kind == kind)
        ]
        return np.asarray(chosen, dtype=np.int64)


def build(
    folder: Path,
    concepts: Sequence[Concept],
    icons: Sequence[Icon],
    mix: Mix,
    credits_: Sequence[Credit],
    processes: int = 2,
    scale: int = 1,
) -> DataSet:
    """Make the data set, or take the one in the folder where it was made from the same sources by the same rules.

    Args:
        folder: Replaced as a whole when the data set is complete, so that it is never half-made.
        concepts: What the icons show.
        icons: The drawings.
        mix: How many composed scenes to make.
        credits_: Whom the manifest names.
        processes: How many draw at the same time.
        scale: Pixels of a picture for one of the scene's ``CANVAS_PX``, each way.

    Returns:
        The data set, read from disk.
    """
    fingerprint = _fingerprint(concepts, icons, mix, scale)
    if _stored_fingerprint(folder) == fingerprint:
        return load(folder)
    planned = plan(concepts, icons, mix)
    log.info("drawing %d scenes of %d icons", len(planned), len(icons))
    drawn = [
        pair for pair in zip(planned, _draw_all(planned, icons, processes, scale), strict=True) if pair[1] is not None
    ]
    kept = [scene for scene, _ in drawn]
    records, captions, english = _describe(kept, icons)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    np.save(partial / "pictures.npy", np.stack([picture for _, picture in drawn if picture is not None]))
    _write_json(partial / "captions.json", {"english": english, "texts": captions})
    _write_json(partial / "records.json", [[*asdict(record).values()] for record in records])
    _write_json(partial / "manifest.json", _manifest(fingerprint, records, mix, credits_, scale))
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return load(folder)


def load(folder: Path) -> DataSet:
    """Read a data set; its pictures stay on disk until they are used."""
    texts = json.loads((folder / "captions.json").read_text())
    rows = json.loads((folder / "records.json").read_text())
    records = tuple(Record(Kind(row[0]), Split(row[1]), row[2], row[3], tuple(row[4])) for row in rows)
    manifest = json.loads((folder / "manifest.json").read_text())
    pictures = np.load(folder / "pictures.npy", mmap_mode="r")
    return DataSet(pictures, records, tuple(texts["texts"]), texts["english"], manifest["fingerprint"])


def plan(concepts: Sequence[Concept], icons: Sequence[Icon], mix: Mix) -> list[Scene]:
    """Describe every picture of the data set without drawing it: every icon alone first, then the composed scenes."""
    by_code = {concept.code: concept for concept in concepts}
    alone = scenes.singles(icons, by_code)
    trained = (position for position, scene in enumerate(alone) if scene.split == Split.TRAIN)
    composer = Composer(icons, by_code, trained, mix.seed)
    composed = [
        scene
        for kind in Kind
        if kind != Kind.SINGLE
        for scene in composer.compose(kind, getattr(mix, kind.name.lower()))
    ]
    return alone + composed


_of_process: tuple[Sequence[Icon], int] = ((), 1)


def _remember(icons: Sequence[Icon], scale: int) -> None:
    """Give a drawing process its icons once, instead of with every scene."""
    global _of_process  # noqa: PLW0603 - a process pool's initialiser has no other way to leave something behind
    _of_process = (icons, scale)


def _draw_one(scene: Scene) -> NDArray[np.uint8] | None:
    return drawing.draw(scene, *_of_process)


def _draw_all(
    planned: Sequence[Scene], icons: Sequence[Icon], processes: int, scale: int
) -> Iterable[NDArray[np.uint8] | None]:
    # Spawned, not forked: the parent may have started torch's threads, which do not survive a fork.
    with get_context("spawn").Pool(processes, _remember, (icons, scale)) as pool:
        yield from pool.imap(_draw_one, planned, chunksize=64)


def _describe(kept: Sequence[Scene], icons: Sequence[Icon]) -> tuple[list[Record], list[str], int]:
    english = list(dict.fromkeys(text for scene in kept for text in scene.captions.english))
    chinese = list(dict.fromkeys(text for scene in kept for text in scene.captions.chinese))
    captions = english + chinese
    position = {text: index for index, text in enumerate(captions)}
    records = [
        Record(
            scene.kind,
            scene.split,
            scene.style,
            icons[scene.placements[0].icon].code,
            tuple(position[text] for text in scene.captions.english + scene.captions.chinese),
        )
        for scene in kept
    ]
    return records, captions, len(english)


def _manifest(
    fingerprint: str, records: Sequence[Record], mix: Mix, credits_: Sequence[Credit], scale: int
) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint,
        "rules_version": RULES_VERSION,
        "canvas_px": CANVAS_PX * scale,
        "mix": asdict(mix),
        "styles": [asdict(style) for style in STYLES],
        "credits": [asdict(credit) for credit in credits_],
        "pictures_by_kind": {kind.name: n for kind, n in sorted(Counter(r.kind for r in records).items())},
        "pictures_by_split": {split.name: n for split, n in sorted(Counter(r.split for r in records).items())},
        "pictures_by_style": {STYLES[s].prefix: n for s, n in sorted(Counter(r.style for r in records).items())},
        "concepts": len({record.code for record in records}),
    }


def _fingerprint(concepts: Sequence[Concept], icons: Sequence[Icon], mix: Mix, scale: int) -> str:
    digest = hashlib.sha256(repr((RULES_VERSION, mix, concepts)).encode())
    if scale > 1:
        digest.update(f"scale {scale}".encode())
    for icon in icons:
        digest.update(repr(icon).encode())
    return digest.hexdigest()[:16]


def _stored_fingerprint(folder: Path) -> str | None:
    path = folder / "manifest.json"
    return str(json.loads(path.read_text())["fingerprint"]) if path.exists() else None


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1 if path.name == "manifest.json" else None))
