"""Memory that runs out, and memory that is divided: no batch crashes and no answer changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from generation import torch_devices
from generation.chat.engine import ChatEngine
from generation.torch_devices import is_out_of_memory
from generation.types import Failed, Finished
from tests.chat_models import answer, drain, drain_one, letter_tokenizer, new_engine, request, tiny_model

PERSONA = "You are Nova, a friendly companion. Keep answers short."


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return letter_tokenizer()


@pytest.fixture(scope="module")
def reference() -> PreTrainedModel:
    return tiny_model("llama")


@pytest.fixture
def engine(tokenizer: PreTrainedTokenizerBase) -> Iterator[ChatEngine]:
    engine = new_engine(tokenizer)
    yield engine
    engine.close()


class Memory:
    """Stands in for a device whose memory runs out: passes with more rows or tokens than there is room for fail."""

    def __init__(self, engine: ChatEngine, error: Exception) -> None:
        self.most_rows = 10**6
        self.failures = 0
        self._run = engine._forward.run
        self._error = error
        engine._forward.run = self.run  # type: ignore[method-assign]

    def run(self, plan: object) -> torch.Tensor:
        rows = len(plan.decode) + len(plan.chunks)  # type: ignore[attr-defined]
        if rows > self.most_rows:
            self.failures += 1
            raise self._error
        return self._run(plan)  # type: ignore[arg-type]


LACKS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", LACKS)
def test_lack_of_memory_sheds_and_retries_without_changing_an_answer(
    error: Exception, tokenizer: PreTrainedTokenizerBase, reference: PreTrainedModel, engine: ChatEngine
) -> None:
    memory = Memory(engine, error)
    requests = [request(str(n), f"Question {n}", PERSONA, max_new_tokens=10 + n) for n in range(5)]
    requests.append(request("sampled", "Q", temperature=1.0, seed=5, max_new_tokens=12))
    expected = drain_one(new_engine(tokenizer), requests[-1])[1]

    def act(step: int) -> None:
        if step == 0:
            for chat in requests:
                engine.submit(chat)
        memory.most_rows = 2 if step == 6 else memory.most_rows

    said = drain(engine, act)
    assert memory.failures >= 1
    for chat in requests[:-1]:
        assert said.text[chat.request_id] == answer(reference, tokenizer, chat)
    assert said.text["sampled"] == expected
    assert all(isinstance(end, Finished) for end in said.ends.values())


def test_lack_of_memory_between_a_pass_and_its_tokens_loses_none(
    tokenizer: PreTrainedTokenizerBase, reference: PreTrainedModel, engine: ChatEngine
) -> None:
    forward = engine._forward
    swap, trim, failures = forward.swap, forward.trim, []

    def fail_once(first: int, second: int, tokens: int) -> None:
        if not failures:
            failures.append(first)
            raise LACKS[0]
        swap(first, second, tokens)

    def fail_to_trim(rows: int, tokens: int) -> None:
        if len(failures) == 1:
            failures.append(rows)
            raise LACKS[1]
        trim(rows, tokens)

    forward.swap, forward.trim = fail_once, fail_to_trim  # type: ignore[method-assign]
    requests = [request("running", "Hi", max_new_tokens=30), request("long", "x" * 200), request("short", "Hello")]

    def join(step: int) -> None:
        if step in {0, 3}:
            for chat in requests[:1] if step == 0 else requests[1:]:
                engine.submit(chat)

    said = drain(engine, join)
    assert len(failures) == 2
    for chat in requests:
        assert said.text[chat.request_id] == answer(reference, tokenizer, chat)


def test_what_does_not_fit_alone_fails_and_the_engine_goes_on(
    tokenizer: PreTrainedTokenizerBase, engine: ChatEngine
) -> None:
    memory = Memory(engine, LACKS[0])
    memory.most_rows = 0
    engine.submit(request("r", "Hello"))
    end = drain(engine).ends["r"]
    assert isinstance(end, Failed)
    assert end.code == "out_of_memory"
    memory.most_rows = 10
    assert drain_one(engine, request("again", "Hello"))[0].finish_reason == "length"


def test_other_errors_are_not_taken_for_a_lack_of_memory(engine: ChatEngine) -> None:
    Memory(engine, RuntimeError("something else")).most_rows = 0
    engine.submit(request("r", "Hello"))
    with pytest.raises(RuntimeError, match="something else"):
        engine.step()
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_admission_keeps_within_the_memory_for_keys_and_values(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_engine(tokenizer)
    engine._scheduler._budget_tokens = 200
    for n in range(6):
        engine.submit(request(str(n), "Hello " * 5, max_new_tokens=20))
    needed = next(iter(engine._sequences.values())).needed_tokens
    most = 0

    def watch(step: int) -> None:
        nonlocal most
        most = max(most, len(engine._scheduler.active))

    ends = drain(engine, watch).ends
    assert len(ends) == 6
    assert most == 200 // needed
    engine._budget_tokens = 30
    engine.submit(request("large", "Hello " * 5))
    end = drain(engine).ends["large"]
    assert isinstance(end, Failed)
    assert end.code == "out_of_memory"
    assert "30" in end.message


def test_limits_follow_from_free_memory(tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_devices, "free_memory_bytes", lambda device: 300_000)
    engine = new_engine(tokenizer)
    cache_bytes = 3 * 2 * 2 * 8 * 4 * engine._budget_tokens  # layers, keys and values, heads, dimensions, float32
    assert 20_000 < cache_bytes < 240_000
    end, _ = drain_one(engine, request("r", "Hello", max_new_tokens=300))
    assert end.usage.prompt_tokens + end.usage.completion_tokens == engine._budget_tokens
    engine.submit(request("large", "x" * 180, max_new_tokens=2))
    failure = drain(engine).ends["large"]
    assert isinstance(failure, Failed)
    assert failure.code == "out_of_memory"
    assert str(engine._budget_tokens) in failure.message


def test_memory_for_keys_and_values_is_taken_as_it_is_needed(engine: ChatEngine) -> None:
    cache = engine._forward.cache  # type: ignore[attr-defined]
    assert cache.rows == 0
    drain_one(engine, request("one", "Hello"))
    assert (cache.rows, cache.length) == (1, 64)
    for n in range(3):
        engine.submit(request(str(n), "Hello " * 12))
    drain(engine)
    assert 3 <= cache.rows <= 6
    assert 84 <= cache.length <= 192
