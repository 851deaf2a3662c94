"""The engine's promises, on a tiny model: exactness in company, cancel, deadlines, memory, stop strings, accounts."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from generation.chat.engine import ChatEngine
from generation.types import ChatRequest, Failed, Finished, Message, Sampling
from tests.chat_models import (
    answer,
    drain,
    drain_one,
    generated,
    letter_tokenizer,
    new_engine,
    prompt_of,
    request,
    tiny_model,
)

PERSONA = "You are Nova, a friendly companion. Keep answers short."
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "many", "others", "watch", "it"]


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


@pytest.mark.parametrize("seed", range(32))
def test_random_joins_cancels_and_prefix_hits_change_no_answer(
    seed: int, tokenizer: PreTrainedTokenizerBase, reference: PreTrainedModel, engine: ChatEngine
) -> None:
    dice = random.Random(seed)
    requests: dict[str, ChatRequest] = {}
    cancelled: set[str] = set()

    def act(step: int) -> None:
        for _ in range(dice.choice([0, 0, 1, 3]) if step else 3):
            if len(requests) < 10:
                name = str(len(requests))
                text = " ".join(dice.choices(WORDS, k=dice.randint(1, 15)))
                system = dice.choice([PERSONA, PERSONA, ""])
                requests[name] = request(name, text, system, max_new_tokens=dice.randint(1, 20))
                engine.submit(requests[name])
        if requests and dice.random() < 0.1:
            name = dice.choice(sorted(requests))
            engine.cancel(name)
            cancelled.add(name)

    said = drain(engine, act)
    finished = set(requests) - cancelled
    assert finished <= set(said.ends)
    assert len(finished) >= 3
    for name in said.ends:
        assert said.text[name] == answer(reference, tokenizer, requests[name]), name


def test_prefix_cache_supplies_shared_beginnings(
    tokenizer: PreTrainedTokenizerBase, reference: PreTrainedModel, engine: ChatEngine
) -> None:
    first = request("first", "Hello", PERSONA)
    drain_one(engine, first)
    second = request("second", "Goodbye", PERSONA)
    end, text = drain_one(engine, second)
    assert end.usage.cached_tokens >= len(PERSONA)
    assert end.usage.cached_tokens < end.usage.prompt_tokens
    assert text == answer(reference, tokenizer, second)


def test_seeded_sampling_is_the_same_in_any_company(tokenizer: PreTrainedTokenizerBase) -> None:
    rules: list[dict[str, object]] = [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_p": 0.8},
        {"temperature": 1.5, "top_k": 20},
        {"temperature": 1.2, "top_k": 200, "top_p": 0.9, "min_p": 0.02},
        {"temperature": 0.9, "repetition_penalty": 1.3},
    ]
    requests = [
        request(str(n), f"Tell me {n}", PERSONA, **rule, seed=1234 + n, max_new_tokens=20)
        for n, rule in enumerate(rules)
    ]
    alone = {chat.request_id: drain_one(new_engine(tokenizer), chat)[1] for chat in requests}
    engine = new_engine(tokenizer)
    neighbours = [request(f"n{n}", "Noise " * n, temperature=1.0, max_new_tokens=9) for n in range(1, 5)]

    def join(step: int) -> None:
        if step < len(requests):
            engine.submit(requests[-1 - step])
        if step < len(neighbours):
            engine.submit(neighbours[step])

    said = drain(engine, join)
    assert {name: said.text[name] for name in alone} == alone
    assert len(set(alone.values())) == len(alone)


def test_requests_without_a_seed_differ(engine: ChatEngine) -> None:
    texts = {drain_one(engine, request(str(n), "Hi", temperature=1.5, max_new_tokens=20))[1] for n in range(3)}
    assert len(texts) == 3


def test_cancel_frees_the_row_for_the_next_step(tokenizer: PreTrainedTokenizerBase) -> None:
    engine = new_engine(tokenizer, slots=1)
    engine.submit(request("long", "Hello", max_new_tokens=300))
    engine.submit(request("next", "Hello", max_new_tokens=3))
    engine.step()
    engine.step()
    engine.cancel("long")
    engine.cancel("unknown")
    events = engine.step()
    assert {event.request_id for event in events} == {"next"}
    said = drain(engine)
    assert set(said.ends) == {"next"}
    assert not engine.busy


def test_deadline_ends_running_and_waiting_requests_as_they_are(tokenizer: PreTrainedTokenizerBase) -> None:
    engine = new_engine(tokenizer, slots=1)
    turns = (Message("user", "Hello"),)
    greedy = Sampling(max_new_tokens=390, temperature=0)
    engine.submit(ChatRequest("running", turns, greedy, deadline_s=0.15))
    engine.submit(ChatRequest("waiting", turns, greedy, deadline_s=0.01))
    said = drain(engine, lambda step: time.sleep(0.02))
    reasons = {name: end.finish_reason for name, end in said.ends.items() if isinstance(end, Finished)}
    assert reasons == {"running": "deadline", "waiting": "deadline"}
    assert said.text["running"]
    assert said.text["waiting"] == ""


def test_stop_strings_never_appear(
    tokenizer: PreTrainedTokenizerBase, reference: PreTrainedModel, engine: ChatEngine
) -> None:
    whole = answer(reference, tokenizer, request("r", "Hello", max_new_tokens=30))
    stop = whole[10:13]
    end, text = drain_one(engine, request("r", "Hello", max_new_tokens=30, stop=(stop, "never")))
    assert text == whole[: whole.index(stop)]
    assert end.finish_reason == "stop"
    assert end.usage.completion_tokens == whole.index(stop) + 3


def test_end_token_ends_the_answer_and_stays_out(
    tokenizer: PreTrainedTokenizerBase, reference: PreTrainedModel
) -> None:
    chat = request("r", "Hello", max_new_tokens=30)
    eos = (generated(reference, prompt_of(chat, tokenizer), 30)[7],)
    end, text = drain_one(new_engine(tokenizer, eos), chat)
    assert text == answer(reference, tokenizer, chat, eos)
    assert end.finish_reason == "stop"


def test_usage_adds_up(tokenizer: PreTrainedTokenizerBase, engine: ChatEngine) -> None:
    chat = request("r", "Hello there", PERSONA, max_new_tokens=9)
    started_s = time.monotonic()
    end, _ = drain_one(engine, chat)
    elapsed_s = time.monotonic() - started_s
    usage = end.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(prompt_of(chat, tokenizer)), 9)
    assert end.finish_reason == "length"
    assert 0 < usage.ttft_s < usage.duration_s <= elapsed_s
    assert 0 < usage.gpu_s <= usage.duration_s


def test_shares_of_a_batch_add_up_to_the_time_of_its_steps(engine: ChatEngine) -> None:
    for n in range(4):
        engine.submit(request(str(n), "Hello " * n, max_new_tokens=5 + n))
    started_s = time.monotonic()
    said = drain(engine)
    elapsed_s = time.monotonic() - started_s
    assert 0 < sum(end.usage.gpu_s for end in said.ends.values() if isinstance(end, Finished)) <= elapsed_s


def test_oldest_turns_are_dropped_and_counted(engine: ChatEngine) -> None:
    turns = [Message("system", PERSONA)]
    for n in range(12):
        turns += [Message("user", f"Question {n} " + "x" * 30), Message("assistant", "y" * 30)]
    turns.append(Message("user", "And now?"))
    end, _ = drain_one(engine, ChatRequest("r", tuple(turns), Sampling(max_new_tokens=8, temperature=0)))
    assert end.usage.dropped_messages > 0
    assert end.usage.dropped_messages % 2 == 0
    assert end.usage.prompt_tokens + 8 <= engine.info.context_tokens


def test_a_message_beyond_the_context_is_refused_with_both_numbers(engine: ChatEngine) -> None:
    engine.submit(request("long", "x" * 2_000))
    engine.submit(request("short", "Hello"))
    ends = drain(engine).ends
    refusal = ends["long"]
    assert isinstance(refusal, Failed)
    assert refusal.code == "prompt_too_long"
    assert "388" in refusal.message
    assert not refusal.retryable
    assert isinstance(ends["short"], Finished)


def test_an_endless_answer_ends_at_the_context(engine: ChatEngine) -> None:
    end, _ = drain_one(engine, request("r", "Hello", max_new_tokens=1_000_000))
    assert end.finish_reason == "length"
    assert end.usage.prompt_tokens + end.usage.completion_tokens == engine.info.context_tokens


def test_an_id_in_flight_is_not_taken_twice(engine: ChatEngine) -> None:
    engine.submit(request("r", "Hello"))
    with pytest.raises(ValueError, match="in flight"):
        engine.submit(request("r", "Hello"))


def test_close_forgets_everything_and_may_be_repeated(engine: ChatEngine) -> None:
    engine.submit(request("r", "Hello"))
    engine.step()
    engine.close()
    engine.close()
    assert not engine.busy
    assert engine.step() == []


def test_long_prompts_do_not_stall_running_answers(tokenizer: PreTrainedTokenizerBase) -> None:
    engine = new_engine(tokenizer, prefill_chunk_tokens=16)
    engine.submit(request("running", "Hello", max_new_tokens=60))
    while not engine.step():
        pass
    engine.submit(request("long", "x" * 250, max_new_tokens=2))
    engine.submit(request("short", "Hi", max_new_tokens=2))
    order: list[str] = []
    for _ in range(12):
        events = engine.step()
        assert "running" in {event.request_id for event in events}, "every step adds to a running answer"
        order += [event.request_id for event in events if event.request_id != "running"]
    assert "short" in order
    assert "long" not in order, "a short question does not wait behind a long one"
    assert set(drain(engine).ends) == {"running", "long"}
