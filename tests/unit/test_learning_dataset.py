from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from generation.learning import dataset, drawing, scenes, sources
from generation.learning.concepts import STYLES
from generation.learning.dataset import Mix
from generation.learning.scenes import CANVAS_PX, Kind, Placement, Scene, Split

MIX = Mix(background=8, recolour=6, place=6, count=6, pair=8)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dataset.DataSet]:
    folder = tmp_path_factory.mktemp("learning") / "data"
    origin = sources.from_shapes()
    return folder, dataset.build(folder, origin.concepts, origin.icons, MIX, origin.credits, processes=1)


def test_every_picture_has_captions_in_both_languages(built: tuple[Path, dataset.DataSet]) -> None:
    _, data = built
    assert data.pictures.shape == (len(data.records), CANVAS_PX, CANVAS_PX, 3)
    assert data.pictures.dtype == np.uint8
    for record in data.records:
        assert any(caption < data.english for caption in record.captions)
        assert any(caption >= data.english for caption in record.captions)
    assert all(text.isascii() for text in data.captions[: data.english])
    assert not any(text.isascii() for text in data.captions[data.english :])


def test_building_again_takes_what_is_there_and_another_mix_replaces_it(
    built: tuple[Path, dataset.DataSet], tmp_path: Path
) -> None:
    origin = sources.from_shapes()
    arguments = (origin.concepts, origin.icons)
    first = dataset.build(tmp_path / "data", *arguments, MIX, origin.credits, processes=1)
    assert (first.pictures == built[1].pictures).all()
    assert first.records == built[1].records
    written_ns = (tmp_path / "data" / "pictures.npy").stat().st_mtime_ns
    dataset.build(tmp_path / "data", *arguments, MIX, origin.credits, processes=1)
    assert (tmp_path / "data" / "pictures.npy").stat().st_mtime_ns == written_ns
    other = dataset.build(tmp_path / "data", *arguments, replace(MIX, seed=1), origin.credits, processes=1)
    assert other.fingerprint != first.fingerprint
    assert other.captions != first.captions


def test_the_manifest_names_licences_and_counts(built: tuple[Path, dataset.DataSet]) -> None:
    folder, data = built
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["credits"][0]["licence"] == "Apache-2.0"
    assert sum(manifest["pictures_by_split"].values()) == len(data.records)
    assert sum(manifest["pictures_by_kind"].values()) == len(data.records)


def test_no_style_is_share_alike() -> None:
    assert {style.licence for style in STYLES} <= {"Apache-2.0", "MIT", "CC-BY-4.0"}


def test_what_is_held_out_appears_in_no_training_scene() -> None:
    origin = sources.from_shapes()
    # Many codes for the same drawings, so that every split is populated.
    concepts = [replace(concept, code=f"{concept.code}-{n}") for concept in origin.concepts for n in range(40)]
    icons = [replace(icon, code=f"{icon.code}-{n}") for icon in origin.icons for n in range(40)]
    planned = dataset.plan(concepts, icons, replace(MIX, pair=500, count=500))
    alone = {scene.placements[0].icon: scene.split for scene in planned if scene.kind == Kind.SINGLE}
    for scene in planned:
        if scene.kind != Kind.SINGLE:
            assert all(alone[placement.icon] == Split.TRAIN for placement in scene.placements)
    trained_codes = {icons[index].code for index, split in alone.items() if split == Split.TRAIN}
    held_codes = {icons[index].code for index, split in alone.items() if split == Split.HELD_CONCEPT}
    held_families = {
        (icons[index].code, STYLES[icons[index].style].family)
        for index, split in alone.items()
        if split == Split.HELD_PICTURE
    }
    trained_families = {
        (icons[index].code, STYLES[icons[index].style].family) for index, split in alone.items() if split == Split.TRAIN
    }
    assert held_codes
    assert not held_codes & trained_codes
    assert held_families
    assert not held_families & trained_families
    assert {code for code, _ in held_families} <= trained_codes
    shares = Counter(alone.values())
    assert 0.02 < shares[Split.HELD_CONCEPT] / len(alone) < 0.1
    assert 0.03 < shares[Split.HELD_PICTURE] / len(alone) < 0.15


def _ball(**changes: object) -> tuple[Scene, sources.Sources]:
    origin = sources.from_shapes()
    placement = replace(Placement(0, 2, 2, 30), **changes)  # type: ignore[arg-type]  # test values are right
    captions = scenes.singles(origin.icons, {concept.code: concept for concept in origin.concepts})[0].captions
    return Scene(Kind.PLACE, Split.TRAIN, 0, (255, 255, 255), (placement,), captions), origin


def test_a_placement_draws_inside_its_box_only() -> None:
    scene, origin = _ball()
    picture = drawing.draw(scene, origin.icons)
    assert picture is not None
    assert (picture[:, 34:] == 255).all()
    assert (picture[34:] == 255).all()
    assert (picture[16, 16] != 255).any()


def test_a_box_may_reach_over_the_edge() -> None:
    scene, origin = _ball(left_px=-15, top_px=49)
    picture = drawing.draw(scene, origin.icons)
    assert picture is not None
    assert (picture[60, 2] != 255).any()


def test_recolouring_turns_the_main_hue_and_refuses_what_has_none() -> None:
    scene, origin = _ball(hue_deg=215.0)
    picture = drawing.draw(scene, origin.icons)
    assert picture is not None
    red, _, blue = (int(channel) for channel in picture[16, 16])
    assert blue > red + 50
    grey = np.full((8, 8, 4), 128, dtype=np.uint8)
    assert drawing.recolour(grey, 215.0) is None


def test_a_broken_drawing_is_left_out() -> None:
    scene, origin = _ball()
    assert drawing.draw(scene, [replace(origin.icons[0], svg="<svg")]) is None
