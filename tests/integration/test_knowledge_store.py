"""The store with the real embedder: found with its place, gone when removed, and each tenant's its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from generation.errors import InvalidRequestError, UnreadableDocumentError
from generation.retrieval.embedding import Embedder, load_embedder
from generation.retrieval.knowledge import Knowledge
from generation.retrieval.types import Filters, Upload

MANUAL = b"""# Manual

## Returning goods

Goods can be returned within 30 days. Write the number ZX-4711 on the parcel.

## Opening hours

We are open from nine to five on weekdays.
"""


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder()


@pytest.fixture(scope="module")
def knowledge(knowledge_url: str, embedder: Embedder) -> Iterator[Knowledge]:
    found = Knowledge(knowledge_url, embedder)
    yield found
    found.close()


def test_the_very_place_is_found_in_either_language(knowledge: Knowledge) -> None:
    shop = knowledge.tenant("shop")
    shop.add(Upload("manual.md", MANUAL, "https://shop.example/manual"))
    for question in ("How long may I send things back?", "\u53ef\u4ee5\u9000\u8d27\u5417\uff1f", "what is ZX-4711"):
        hit = shop.search(question)[0]
        assert (hit.heading_path, hit.anchor) == (("Returning goods",), "returning-goods")
        assert hit.address == "https://shop.example/manual"


@pytest.mark.parametrize("name", ["other", "shop ", "SHOP", "shop' OR '1'='1", "%", "shop|", '1| OR "1|returned"'])
def test_no_other_tenant_sees_it(knowledge: Knowledge, name: str) -> None:
    knowledge.tenant("shop").add(Upload("manual.md", MANUAL, "https://shop.example/manual"))
    stranger = knowledge.tenant(name)
    stranger.add_pair("What is here?", "Only ours.", "someone", "1")
    mine = knowledge.tenant("shop").list()[0]
    for question in ("returned within 30 days", '1|returned" OR "1|zx-4711', "ZX-4711 * NEAR("):
        assert all("Only ours." in hit.text for hit in stranger.search(question, limit=100))
    assert stranger.search("goods", filters=Filters(document_ids=(mine.document_id,))) == []
    assert not stranger.remove(mine.document_id)


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 201])
def test_a_tenant_has_a_proper_name(knowledge: Knowledge, name: str) -> None:
    with pytest.raises(InvalidRequestError):
        knowledge.tenant(name)


def test_a_removed_document_leaves_no_word_behind(tmp_path: Path, embedder: Embedder) -> None:
    knowledge = Knowledge(f"sqlite:///{tmp_path / 'k.sqlite'}", embedder)
    tenant = knowledge.tenant("shop")
    secret = tenant.add(Upload("secret.txt", b"The password of the vault is xylophonequark."))
    tenant.add(Upload("manual.md", MANUAL))
    assert tenant.remove(secret.document_id)
    assert all("xylophonequark" not in hit.text for hit in tenant.search("xylophonequark", limit=100))
    knowledge.close()
    assert not [path for path in tmp_path.iterdir() if b"xylophonequark" in path.read_bytes()]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.exe", b"MZ", "not a format"),
        ("a.txt", b"\0\1\2", "binary"),
        ("a.md", b"  ", "no text"),
        ("a.html", b"<script>alert(1)</script>", "no text"),
        ("a.txt", b"x " * (26 * 2**20), "MiB"),
    ],
    ids=["format", "binary", "blank", "script", "huge"],
)
def test_what_cannot_be_read_is_told_in_one_line_and_not_stored(
    knowledge: Knowledge, name: str, content: bytes, reason: str
) -> None:
    tenant = knowledge.tenant("broken")
    with pytest.raises(UnreadableDocumentError, match=reason) as told:
        tenant.add(Upload(name, content))
    assert "\n" not in str(told.value)
    assert tenant.list() == []


def test_deep_nesting_is_read_like_anything_else(knowledge: Knowledge) -> None:
    tenant = knowledge.tenant("deep")
    tenant.add(Upload("deep.html", b"<div>" * 20_000 + b"<p>The deep answer is blue.</p>"))
    assert "deep answer" in tenant.search("which colour is the deep answer?")[0].text


def test_the_same_place_keeps_its_id_when_the_text_changes(knowledge: Knowledge) -> None:
    tenant = knowledge.tenant("edits")
    tenant.add(Upload("manual.md", MANUAL))
    before = tenant.search("returning goods")[0]
    tenant.add(Upload("manual.md", MANUAL.replace(b"30 days", b"60 days")))
    after = tenant.search("returning goods")[0]
    assert (after.chunk_id, len(tenant.list())) == (before.chunk_id, 1)
    assert "60 days" in after.text
