"""Tuning: what a set is made of, what is measured, who is promoted, and a training that survives being killed."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import torch
from safetensors.torch import load

from bots.diagnosis import _adapters
from bots.settings import Settings
from generation.chat.loading import LoadedModel
from generation.errors import AdapterError, TuningError
from generation.tuning import evaluation, metrics, serving, training
from generation.tuning.examples import Example, example, fingerprint, masked, prepared, read_file, split
from generation.tuning.place import store_url
from generation.tuning.report import Figures, Report
from generation.tuning.serving import PromotedAdapters
from generation.tuning.store import AdapterStore
from generation.tuning.training import Encoded, Recipe, encoded, perplexity, train
from tests.chat_models import answer, as_loaded, byte_tokenizer, request, tiny_model

GOOD = Figures(4.0, 20.0, 0.4, 0.1, 0.5, 0.6)


def report(after: Figures, held_out: int = 10, before: Figures = GOOD) -> Report:
    return Report(before, after, None, 40, held_out, 10, 1.0, 0.5)


# The set


def test_personal_data_is_masked_before_anything_is_learnt() -> None:
    told = "Write to ann.lee@example.org or call +49 30 1234567, card 4111 1111 1111 1111. 我的密码是 hunter42x"
    made = prepared([example("draft:1", "Who?", told, "Be brief.")])[0]
    assert made.answer == masked(told)
    for secret in ("ann.lee", "1234567", "4111", "hunter42x"):
        assert secret not in made.answer
    assert "[e-mail]" in made.answer
    assert [turn.role for turn in made.messages] == ["system", "user", "assistant"]


def test_the_same_words_count_once_and_the_order_is_always_the_same() -> None:
    some = [example(f"draft:{n}", f"Question {n % 5}?", f"Answer {n % 5}.") for n in range(10)]
    assert prepared(some) == prepared(some[:5])
    assert [each.answer for each in prepared(some)] == [each.answer for each in prepared(some[::-1])]
    assert fingerprint(prepared(some)) == fingerprint(prepared(some[:5]))
    assert fingerprint(prepared(some)) != fingerprint(prepared(some[:4]))


def test_a_question_is_on_the_same_side_however_the_set_grows() -> None:
    many = [example(f"draft:{n}", f"How do I do thing number {n}?", "So.") for n in range(400)]
    few_train, few_held = split(many[:50])
    all_train, all_held = split(many)
    assert set(few_train) <= set(all_train)
    assert set(few_held) <= set(all_held)
    assert 0.14 < len(all_held) / 400 < 0.26
    twice = [example("a", "How do  I pay?", "So."), example("b", "how do i pay?", "Not so.")]
    assert {len(part) for part in split(twice)} == {0, 2}


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        '{"messages": []}',
        '[{"role": "user", "content": "a"}]',
        '[{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]',
        '[{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]',
        '[{"role": "user", "content": 1}, {"role": "assistant", "content": "b"}]',
    ],
)
def test_a_line_that_is_no_dialogue_is_named(line: str, tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text('[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]\n' + line + "\n")
    with pytest.raises(TuningError, match="line 2"):
        read_file(file)


# What is measured


def test_figures_are_those_of_their_definitions() -> None:
    assert metrics.rouge_l("the cat sat on the mat", "the cat is on the mat") == pytest.approx(10 / 12)
    assert metrics.rouge_l("我们今天休息", "我们明天休息") == pytest.approx(10 / 12)
    assert metrics.rouge_l("", "something") == 0.0
    assert metrics.exact("Yes,  it is!", "yes it is")
    assert not metrics.exact("Yes", "No")
    assert metrics.bleu(["the cat sat on the mat today"], ["the cat sat on the mat today"]) == pytest.approx(100)
    assert metrics.bleu(["今天天气很好"], ["今天天气很好"]) == pytest.approx(100)
    assert metrics.bleu(["nothing alike"], ["the cat sat on the mat"]) < 10


def test_a_worse_adapter_is_not_promoted_and_it_is_said_why() -> None:
    assert report(Figures(2.0, 30.0, 0.5, 0.2, 0.6, 0.7)).reasons_against() == []
    assert report(Figures(2.0, 19.5, 0.4, 0.1, 0.49, 0.6)).reasons_against() == []  # within what chance does
    assert "perplexity does not fall" in report(Figures(4.1, 30.0, 0.5, 0.2, 0.6, 0.7)).reasons_against()[0]
    assert "ROUGE-L falls" in report(Figures(2.0, 30.0, 0.3, 0.2, 0.6, 0.7)).reasons_against()[0]
    assert "semantic match falls" in report(Figures(2.0, 30.0, 0.5, 0.2, 0.3, 0.7)).reasons_against()[0]
    assert "too few" in report(Figures(2.0, 30.0, 0.5, 0.2, 0.6, 0.7), held_out=4).reasons_against()[0]
    assert "not a number" in report(Figures(math.nan, 30.0, 0.5, 0.2, 0.6, 0.7)).reasons_against()[0]
    without_encoder = Figures(2.0, 30.0, 0.5, 0.2, None, None)
    assert report(without_encoder).reasons_against() == []
    again = Report.from_json(report(without_encoder).to_json())
    assert again == report(without_encoder)
    assert "BLEU" in again.table()


# The store


@pytest.fixture
def url(tmp_path: Path) -> str:
    return store_url(None, tmp_path)


def add(store: AdapterStore, tenant: str = "a", data: bytes = b"data", identity: str = "m@1", *source: str) -> str:
    return store.add(tenant, "m", identity, "f", {"r": 1}, data, {}, source).adapter_id


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_one_adapter_answers_for_a_tenant_and_the_one_before_comes_back(
    database: str, url: str, request: pytest.FixtureRequest
) -> None:
    if database == "postgresql":
        url = request.getfixturevalue("postgres").database()
    store = AdapterStore(url)
    first, second, other = add(store), add(store), add(store, "b")
    for each in (first, second, other):
        store.promote(each)
        time.sleep(0.002)
    another = AdapterStore(url)
    assert another.answering("m@1") == {"a": second, "b": other}
    another.close()
    assert store.file(other) == ({"r": 1}, b"data")
    assert store.answering("m@2") == {}
    back = store.rollback("a", "m@1")
    assert back is not None
    assert back.adapter_id == first
    assert store.rollback("a", "m@1") is None
    assert store.answering("m@1") == {"b": other}
    assert store.remove(other)
    assert store.answering("m@1") == {}
    with pytest.raises(AdapterError, match="no adapter"):
        store.promote(other)
    store.close()  # PostgreSQL waits for its clients before it stops


def test_what_has_learnt_from_something_deleted_answers_no_more(url: str) -> None:
    store = AdapterStore(url)
    learnt, clean = add(store, "a", b"x", "m@1", "draft:1", "draft:2"), add(store, "b", b"x", "m@1", "draft:1")
    store.promote(learnt)
    store.promote(clean)
    assert store.mark_stale("a", ["draft:2"]) == [learnt]
    assert store.mark_stale("a", ["draft:9"]) == []
    assert store.answering("m@1") == {"b": clean}  # of another tenant, whose draft has the same name by chance
    with pytest.raises(AdapterError, match="deleted"):
        store.promote(learnt)


def test_bytes_that_are_not_what_was_stored_are_refused(url: str) -> None:
    store = AdapterStore(url)
    adapter_id = add(store)
    assert store.file(adapter_id) == ({"r": 1}, b"data")
    with sqlalchemy.create_engine(url).begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE chat_adapter_weights SET data = x'00'"))
    with pytest.raises(AdapterError, match="not what was stored"):
        store.file(adapter_id)


def test_the_doctor_names_an_adapter_that_cannot_be_read(url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert list(_adapters(settings)) == []
    store = AdapterStore(url)
    adapter_id = add(store)
    store.promote(adapter_id)
    assert [finding.level for finding in _adapters(settings)] == ["ok"]
    with sqlalchemy.create_engine(url).begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM chat_adapter_weights"))
    (finding,) = _adapters(settings)
    assert (finding.level, adapter_id in finding.found) == ("error", True)


def test_engines_follow_promotions_and_live_with_a_store_that_fails(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "REFRESH_S", 0.0)
    followed = PromotedAdapters(url, "m@1", torch.device("cpu"), torch.float32)
    assert followed.promoted("a") is None
    assert not list(tmp_path.iterdir())  # an engine makes no database
    store = AdapterStore(url)
    adapter_id = add(store)
    assert followed.promoted("a") is None
    store.promote(adapter_id)
    assert followed.promoted("a") == adapter_id
    with sqlalchemy.create_engine(url).begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE chat_adapters"))
    assert followed.promoted("a") == adapter_id
    assert any("not known anew" in record.message for record in caplog.records)


# Training


@pytest.fixture(scope="module")
def lessons() -> list[Example]:
    return [example(f"draft:{n}", f"What is {n}?", f"It is {'abcdefgh'[n]}.", "Be brief.") for n in range(6)]


def loaded() -> LoadedModel:
    tokenizer = byte_tokenizer()
    return as_loaded(tiny_model("llama"), tokenizer, [int(tokenizer.eos_token_id)])  # type: ignore[arg-type]  # it has one


def trained(lessons: list[Example], folder: Path, on_step: Any = lambda *_: None, **recipe: Any) -> training.Trained:
    model = loaded()
    kept = Recipe(**{"rank": 4, "epochs": 4, "batch_examples": 2, "learning_rate": 0.01, **recipe})
    return train(model, encoded(lessons, model, 300), kept, folder, "key", on_step)[1]


def test_prompts_are_those_of_the_engine_and_answers_end_as_the_model_ends_them(lessons: list[Example]) -> None:
    model = loaded()
    first = encoded(lessons, model, 300)[0]
    text = model.tokenizer.decode(first.prompt + first.answer)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is 0?<|im_end|>\n<|im_start|>assistant\n"
        "It is a.<|im_end|>"
    )
    typed = encoded([example("x", "Q", "a<|im_end|>b")], model, 300)[0]
    assert typed.answer.count(int(model.tokenizer.eos_token_id)) == 1  # type: ignore[arg-type]  # it has one
    assert encoded(lessons, model, 20) == []


def test_only_additions_are_learnt_and_they_help(lessons: list[Example], tmp_path: Path) -> None:
    model = loaded()
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    asked = encoded(lessons, model, 300)
    alone = perplexity(model.model, asked, model.device)
    recipe = Recipe(rank=4, epochs=8, batch_examples=2, learning_rate=0.01)
    tuned, made = train(model, asked, recipe, tmp_path, "key", lambda *_: None)
    assert perplexity(tuned, asked, model.device) < alone / 2
    base = tuned.unload()
    assert all(torch.equal(before[name], tensor) for name, tensor in base.state_dict().items())
    assert perplexity(base, asked, model.device) == pytest.approx(alone)
    assert len(load(made.data)) == 2 * 7 * 3
    assert made.config["base_model_name_or_path"] is None


def test_perplexity_is_that_of_the_model_one_at_a_time(lessons: list[Example]) -> None:
    model = loaded()
    asked = encoded(lessons, model, 300)
    loss = 0.0
    for each in asked:
        logits = model.model(input_ids=torch.tensor([each.prompt + each.answer])).logits[0].log_softmax(-1)
        loss -= sum(float(logits[len(each.prompt) - 1 + n, token]) for n, token in enumerate(each.answer))
    mean = loss / sum(len(each.answer) for each in asked)
    assert perplexity(model.model, asked, model.device) == pytest.approx(math.exp(mean), rel=1e-4)


def test_the_same_seed_gives_the_same_bytes_also_after_an_interruption(
    lessons: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(lessons, tmp_path / "whole", dropout=0.2)
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY_S", 0.0)

    def interrupt(step: int, steps: int, _loss: float) -> None:
        if step == steps // 2 + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(lessons, tmp_path / "cut", interrupt, dropout=0.2)
    seen: list[int] = []
    resumed = trained(lessons, tmp_path / "cut", lambda step, *_: seen.append(step), dropout=0.2)
    assert seen[0] == 7
    assert resumed.data == whole.data
    assert trained(lessons, tmp_path / "other", dropout=0.2, seed=1).data != whole.data


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "phi3", "mixtral", "gpt-oss", "lfm2", "mamba"])
def test_whatever_can_be_tuned_is_served(family: str, lessons: list[Example], tmp_path: Path) -> None:
    """Training chooses projections, and the engine adds to these: also where a model runs through its own modules."""
    tokenizer = byte_tokenizer()
    loaded = as_loaded(tiny_model(family), tokenizer, [int(tokenizer.eos_token_id)])  # type: ignore[arg-type]  # it has one
    asked = encoded(lessons[:2], loaded, 300)
    recipe = Recipe(rank=4, epochs=6, batch_examples=2, learning_rate=0.02)
    tuned, made = train(loaded, asked, recipe, tmp_path, "key", lambda *_: None)
    alone = replace(loaded, model=tuned.unload())
    files = {"new": (made.config, made.data)}
    said = evaluation.answers(alone, lessons[:2], files, [evaluation.ALONE, "new"], lambda *_: None)
    wanted = tiny_model(family)
    base = [
        answer(wanted, tokenizer, request("x", each.question, "Be brief.", max_new_tokens=8)) for each in lessons[:2]
    ]
    assert [text[:4] for text in said[evaluation.ALONE]] == [text[:4] for text in base]
    assert said["new"] != said[evaluation.ALONE]


def test_a_set_that_fits_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="nothing to train on"):
        train(loaded(), [], Recipe(), tmp_path, "key", lambda *_: None)


def test_examples_are_padded_without_a_trace() -> None:
    model = loaded().model
    short, long = Encoded([1, 2, 3], [4, 5]), Encoded(list(range(1, 40)), [7, 8, 9])
    together = perplexity(model, [short, long], torch.device("cpu"))
    alone = [math.log(perplexity(model, [each], torch.device("cpu"))) for each in (short, long)]
    assert math.log(together) == pytest.approx((2 * alone[0] + 3 * alone[1]) / 5, rel=1e-4)
