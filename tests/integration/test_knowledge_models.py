"""Other embedding models and a cross-encoder, real and tiny; the model changes while it is used; filters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from generation.errors import ModelNotFoundError
from generation.retrieval.embedding import load_embedder
from generation.retrieval.knowledge import Knowledge
from generation.retrieval.reranking import load_reranker
from generation.retrieval.types import Filters, Upload
from tests.integration.test_knowledge_sync import Letters
from tests.postgres import PostgresProcess

WORDS = "the parcel is late fish swim deep price of delivery where my when do".split()  # noqa: SIM905 - so many quotes are hard to read


def save_model(folder: Path, *, labels: int = 0) -> str:
    """A tiny BERT with its tokenizer, as the hub has them."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(1)
    known = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(WordLevel(known, "[UNK]"))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    made = BertConfig(vocab_size=len(known), num_labels=labels or 2, **sizes)
    (BertForSequenceClassification(made) if labels else BertModel(made)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def hub_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("hub") / "embedder")


class InterruptedHereError(Exception):
    pass


def test_the_model_is_changed_while_it_is_searched(knowledge_url: str, hub_model: str) -> None:
    knowledge = Knowledge(knowledge_url, Letters())
    shop, other = knowledge.tenant("shop"), knowledge.tenant("other")
    for number in range(3):
        shop.add(Upload(f"{number}.md", f"# The parcel {number}\n\nIt is late.\n\n## Price\n\nNone {number}.".encode()))
    other.add(Upload("fish.txt", b"Fish swim deep."))
    wanted = load_embedder(hub_model)

    def interrupt(done: int, _: int) -> None:
        assert shop.search("late parcel")  # nothing is away meanwhile
        shop.add(Upload("late.txt", b"Added while it went on."))
        if done == 2:
            raise InterruptedHereError

    with pytest.raises(InterruptedHereError):
        knowledge.reembed(wanted, interrupt)
    assert knowledge.active_model().name == "letters"
    done: list[int] = []
    assert knowledge.reembed(wanted, lambda many, _: done.append(many))
    assert done[0] > 2  # what was made before the interruption is not made again
    assert knowledge.active_model().name == hub_model
    assert not knowledge.reembed(wanted)
    # Everybody's passages are found with the new model, those included that came meanwhile; the old one has left.
    assert [len(tenant.list()) for tenant in (shop, other)] == [4, 1]
    assert other.search("where do fish swim")[0].text == "Fish swim deep."
    assert {hit.title for hit in shop.search("delivery", 100)} == {
        "The parcel 0",
        "The parcel 1",
        "The parcel 2",
        "late.txt",
    }
    assert [model.name for model in knowledge.models()] == [hub_model]
    # Whoever opens the store with another setting searches with the model that it has.
    second = Knowledge(knowledge_url, Letters())
    assert second.tenant("other").search("fish")[0].text == "Fish swim deep."
    second.close()
    knowledge.close()


def test_a_model_of_the_hub_embeds(hub_model: str) -> None:
    vectors = load_embedder(hub_model).encode(["the parcel is late", "fish swim", "the parcel is late"])
    assert vectors.shape == (3, 32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4)
    assert np.allclose(vectors[0], vectors[2], atol=1e-5)


def test_a_cross_encoder_judges_the_best_passages_again(tmp_path: Path) -> None:
    name = save_model(tmp_path / "reranker", labels=1)
    reranker = load_reranker(name)
    assert reranker is not None
    texts = ["the parcel is late", "fish swim deep", "price of delivery"]
    odds = reranker.log_odds("where is my parcel", texts)
    assert odds == pytest.approx([reranker.log_odds("where is my parcel", [text])[0] for text in texts], abs=1e-4)

    class Fishy:
        def log_odds(self, question, passages):
            return [9.0 if "Fish" in passage else -9.0 for passage in passages]

    url = f"sqlite:///{tmp_path / 'k.sqlite'}"
    plain, judged = Knowledge(url, Letters()), Knowledge(url, Letters(), reranker=Fishy())
    for text in (b"Fish swim deep.", b"The parcel is late."):
        plain.tenant("shop").add(Upload(f"{text[:4].decode()}.txt", text))
    assert plain.tenant("shop").search("the parcel is late")[0].text == "The parcel is late."
    assert judged.tenant("shop").search("the parcel is late")[0].text == "Fish swim deep."
    plain.close()
    judged.close()


@pytest.mark.parametrize("load", [load_embedder, load_reranker])
def test_a_model_that_is_not_there_is_told(load, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="is no"):
        load(str(tmp_path))


def test_filters_and_tenants_hold_together(knowledge_url: str) -> None:
    knowledge = Knowledge(knowledge_url, Letters())
    shop = knowledge.tenant("filters")
    shop.add(Upload("a.txt", b"The parcel is late again.", "https://a.example/x", tags=("post", "it's % _")))
    shop.add(
        Upload(
            "b.txt",
            "\u5305\u88f9\u665a\u5230\u4e86\uff0c\u8bf7\u7a0d\u7b49\u4e00\u4e0b\u5427\uff0c\u8c22\u8c22\u60a8\u3002".encode(),
            "https://b.example/",
            metadata={"year": "2024"},
        )
    )
    knowledge.tenant("stranger").add(Upload("c.txt", b"The parcel is ours.", tags=("post",)))

    def found(**filters: object) -> list[str]:
        return sorted(hit.address or "" for hit in shop.search("parcel \u5305\u88f9", 100, Filters(**filters)))  # type: ignore[arg-type]

    assert found(languages=("zh",)) == ["https://b.example/"]
    assert found(tags=("post", "it's % _")) == ["https://a.example/x"]
    assert found(tags=("%",)) == found(tags=("post' OR '1'='1",)) == found(metadata={"year": "2"}) == []
    assert found(metadata={"year": "2024"}) == ["https://b.example/"]
    assert found(sources=("upload:https://a.",)) == ["https://a.example/x"]
    assert found(sources=("%",)) == found(sources=("upload:https://_",)) == []
    assert found(sources=("upload:",), languages=("en", "zh")) == ["https://a.example/x", "https://b.example/"]
    knowledge.close()


def test_scores_are_the_same_on_both_databases(postgres: PostgresProcess, tmp_path: Path) -> None:
    found = []
    for url in (f"sqlite:///{tmp_path / 'k.sqlite'}", postgres.database()):
        knowledge = Knowledge(url, Letters())
        shop = knowledge.tenant("shop")
        shop.add(Upload("en.md", b"# Help\n\nThe parcel ZX-4711 is late.\n\n## Price\n\nDelivery costs 5 euros."))
        delivery = "\u914d\u9001\u8d39\u4e94\u6b27\u5143\u3002"
        chinese = f"# \u5e2e\u52a9\n\n\u60a8\u7684\u5305\u88f9\u665a\u5230\u4e86\u3002\n\n## \u4ef7\u683c\n\n{delivery}"
        shop.add(Upload("zh.md", chinese.encode()))
        questions = ("where is ZX-4711", "price of delivery", "\u914d\u9001\u8d39\u591a\u5c11", "\u5305\u88f9")
        found.append([[(hit.chunk_id, hit.score) for hit in shop.search(question, 10)] for question in questions])
        knowledge.close()
    assert found[0] == found[1]
    assert all(found[0])
