"""What the pictures show: emoji concepts with their names in two languages, and the icons that draw them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generation.errors import ModelCorruptError
from generation.learning.packages import EMOJIBASE, ICONIFY, fetch, read_members


@dataclass(frozen=True, slots=True)
class Style:
    """One icon set.

    Args:
        prefix: The set's name in the collection.
        word: What a caption calls the style.
        family: Sets of one designer share it: they are held out together, because they resemble each other.
        licence: SPDX name; checked against what the set itself says.
    """

    prefix: str
    word: str
    family: str
    licence: str


# Sets under a share-alike licence (openmoji, emojione-v1) are left out: the weights shall carry no such condition.
STYLES = (
    Style("noto", "shaded", "noto", "Apache-2.0"),
    Style("noto-v1", "blob", "noto", "Apache-2.0"),
    Style("twemoji", "flat", "twemoji", "CC-BY-4.0"),
    Style("fluent-emoji-flat", "modern", "fluent", "MIT"),
    Style("fluent-emoji", "glossy", "fluent", "MIT"),
    Style("emojione", "classic", "emojione", "CC-BY-4.0"),
    Style("fxemoji", "soft", "fxemoji", "Apache-2.0"),
    Style("streamline-emojis", "outlined", "streamline", "CC-BY-4.0"),
)


@dataclass(frozen=True, slots=True)
class Concept:
    """One thing that can be asked for.

    Args:
        code: Unicode code points in hex joined by ``-``, without variation selectors: the identity across sets.
        names: English names, the standard label first.
        tags: English keywords.
        names_zh: Chinese names, the standard label first.
        tags_zh: Chinese keywords.
        group: Emoji group, for example ``animals-nature``.
        subgroup: Finer group, for example ``animal-mammal``.
    """

    code: str
    names: tuple[str, ...]
    tags: tuple[str, ...]
    names_zh: tuple[str, ...]
    tags_zh: tuple[str, ...]
    group: str
    subgroup: str


@dataclass(frozen=True, slots=True)
class Icon:
    """One drawing of one concept.

    Args:
        style: Index into the styles.
        code: ``Concept.code`` of what it shows.
        svg: A whole SVG document.
    """

    style: int
    code: str
    svg: str


@dataclass(frozen=True, slots=True)
class Credit:
    """Whom to name for a set, as its licence asks."""

    title: str
    author: str
    url: str
    licence: str


WANTED_GROUPS = frozenset({"smileys-emotion", "animals-nature", "food-drink", "travel-places", "activities", "objects"})
WANTED_SUBGROUPS = frozenset(
    {
        "body-parts",
        "hand-fingers-closed",
        "hand-fingers-open",
        "hand-fingers-partial",
        "hands",
        "person-fantasy",
        "person-role",
    }
)
# Letters, clock times and variants of one person cost capacity, and nobody asks for them.
UNWANTED_LABEL = re.compile(
    r"o'clock|-thirty|button|symbol|keycap|\bsign\b|^(man|woman|men|women|person|people|mrs|mx)\b|"
    r"banknote|mailbox with|speaker (low|medium)|gibbous|quarter moon\b(?! face)|card index|hundred points"
)


def load_concepts(downloads_dir: Path) -> tuple[Concept, ...]:
    """Read the concepts worth learning, in the order of the Unicode chart.

    Source: emojibase-data (labels and tags from Unicode CLDR; short names that people type in chats).
    """
    files = read_members(
        fetch(EMOJIBASE, downloads_dir),
        lambda name: bool(
            re.fullmatch(r"package/(en/(data|messages|shortcodes/(github|emojibase))|zh/data)\.json", name)
        ),
    )
    tables = {name.removeprefix("package/"): json.loads(content) for name, content in files.items()}
    messages = tables["en/messages.json"]
    groups = {item["order"]: item["key"] for item in messages["groups"]}
    subgroups = {item["order"]: item["key"] for item in messages["subgroups"]}
    chinese = {item["hexcode"]: item for item in tables["zh/data.json"]}
    shortcodes = (tables["en/shortcodes/github.json"], tables["en/shortcodes/emojibase.json"])
    concepts = []
    for item in tables["en/data.json"]:
        group, subgroup = groups.get(item.get("group"), ""), subgroups.get(item.get("subgroup"), "")
        label = _plain(item["label"])
        if (group in WANTED_GROUPS or subgroup in WANTED_SUBGROUPS) and not UNWANTED_LABEL.search(label):
            zh = chinese[item["hexcode"]]
            concepts.append(
                Concept(
                    code=_code(item["hexcode"]),
                    names=_names(label, (table.get(item["hexcode"]) for table in shortcodes)),
                    tags=tuple(_plain(tag) for tag in item.get("tags", ())),
                    names_zh=(zh["label"],),
                    tags_zh=tuple(zh.get("tags", ())),
                    group=group,
                    subgroup=subgroup,
                )
            )
    return tuple(concepts)


def load_icons(downloads_dir: Path, concepts: Iterable[Concept]) -> tuple[tuple[Icon, ...], tuple[Credit, ...]]:
    """Read the drawings of the given concepts.

    Returns:
        At most one icon for each concept and style, in that order, and a credit for each style.

    Raises:
        ModelCorruptError: A set's licence is not the one it is used under.
    """
    paths = {f"package/json/{style.prefix}.json": index for index, style in enumerate(STYLES)}
    files = read_members(fetch(ICONIFY, downloads_dir), lambda name: name in paths)
    sets = {paths[name]: json.loads(content) for name, content in files.items()}
    for index, style in enumerate(STYLES):
        if sets[index]["info"]["license"]["spdx"] != style.licence:
            raise ModelCorruptError(f"The icon set {style.prefix} is no longer under {style.licence}: leave it out.")
    wanted = {concept.code: concept for concept in concepts}
    by_name = _codes_by_name(wanted.values(), sets.values())
    icons: dict[tuple[str, int], Icon] = {}
    for style_index, icon_set in sorted(sets.items()):
        codes = {name: _code(char) for char, name in icon_set.get("chars", {}).items()}
        for name, icon in icon_set["icons"].items():
            code = codes.get(name) or by_name.get(_letters(name))
            if code in wanted and not icon.get("hidden"):
                icons.setdefault((code, style_index), Icon(style_index, code, _document(icon_set, icon)))
    order = {code: position for position, code in enumerate(wanted)}
    ordered = tuple(icons[key] for key in sorted(icons, key=lambda key: (order[key[0]], key[1])))
    return ordered, tuple(_credit(sets[index]["info"]) for index in range(len(STYLES)))


def _credit(info: dict[str, Any]) -> Credit:
    author, licence = info["author"], info["license"]
    return Credit(info["name"], author["name"], author.get("url", licence.get("url", "")), licence["spdx"])


def _codes_by_name(concepts: Iterable[Concept], sets: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Map names without hyphens to code points, for the sets that name their icons but do not give the code points."""
    table: dict[str, str] = {}
    for icon_set in sets:
        for char, name in icon_set.get("chars", {}).items():
            table.setdefault(_letters(name), _code(char))
    for concept in concepts:
        table[_letters(concept.names[0])] = concept.code
        for name in concept.names[1:]:
            table.setdefault(_letters(name), concept.code)
    return table


def _names(label: str, shortcodes: Iterable[str | list[str] | None]) -> tuple[str, ...]:
    names = {label: None}
    for entry in shortcodes:
        for name in [entry] if isinstance(entry, str) else entry or ():
            if re.fullmatch(r"[a-z]{3,}(_[a-z]+){0,3}", name):
                names[name.replace("_", " ")] = None
    return tuple(names)


def _document(icon_set: dict[str, Any], icon: dict[str, Any]) -> str:
    width, height = (icon.get(key, icon_set.get(key, 16)) for key in ("width", "height"))
    left, top = icon.get("left", 0), icon.get("top", 0)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


def _plain(text: str) -> str:
    return text.lower().replace("\u2019", "'").replace(":", "").replace("“", "").replace("”", "")


def _letters(name: str) -> str:
    """Drop hyphens and spaces and the number of a variant, so that ``bird-1`` and ``Bird`` agree."""
    return re.sub(r"[^a-z]", "", re.sub(r"-\d$", "", name.lower()))


def _code(hexcode: str) -> str:
    return "-".join(part for part in hexcode.upper().split("-") if part != "FE0F")
