"""The embedded model answers in company as ``generate`` does alone: exactly in float32, up to near-ties in bf16."""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch

from generation import devices
from generation.chat.config import ChatConfig
from generation.chat.engine import ChatEngine
from generation.chat.loading import LoadedModel, load
from generation.types import ChatRequest, Finished
from tests import embedded_model
from tests.chat_models import drain, generated, prompt_of, request

pytestmark = pytest.mark.model

PERSONA = "You are Nova, a friendly companion in a chat app. Keep answers short, warm and concrete."
QUESTIONS = [
    "What is the capital of France?",
    "Say hello in three languages.",
    "Why is the sky blue?",
    "Tell me about cats. 😀",
    "Name a colour.",
    "What is two plus two?",
    "How do I boil an egg?",
    "Write a line about the sea.",
]
LONGEST_TOKENS = 14
#: In float32 the two best logits of a near-tie in bf16 lie closer than this: bf16 steps by 1/8 at their magnitude.
NEAR_TIE = 0.6


def loaded(dtype: str) -> LoadedModel:
    config = ChatConfig(model=embedded_model.NAME, data_dir=embedded_model.DATA_DIR, device="cpu", dtype=dtype)  # type: ignore[arg-type]  # one of the literals
    embedded_model.directory()
    return load(config, lambda stage, share: None)


@cache
def reference(dtype: str) -> LoadedModel:
    return loaded(dtype)


@cache
def shared_engine(dtype: str) -> ChatEngine:
    return ChatEngine(loaded(dtype), ChatConfig(slots=5, prefill_chunk_tokens=64, prefix_cache_tokens=600))


def chat(name: str, number: int, **sampling: object) -> ChatRequest:
    return request(name, QUESTIONS[number], PERSONA if number % 4 else "", **sampling)


@cache
def alone(number: int) -> list[int]:
    """What ``generate`` answers to a question in float32."""
    model = reference("float32")
    prompt = prompt_of(chat("r", number), model.tokenizer)
    return generated(model.model, prompt, LONGEST_TOKENS, sorted(model.eos_token_ids))


@pytest.mark.parametrize("seed", range(32))
def test_float32_answers_equal_generate_in_any_company(seed: int) -> None:
    dice = random.Random(seed)
    engine = shared_engine("float32")
    tokenizer = reference("float32").tokenizer
    waiting = {str(n): (dice.randrange(len(QUESTIONS)), dice.randint(1, LONGEST_TOKENS)) for n in range(4)}
    asked: dict[str, tuple[int, int]] = {}
    cancelled = set()

    def act(step: int) -> None:
        while waiting and (step == 0 or dice.random() < 0.4):
            name, (number, count) = waiting.popitem()
            asked[name] = (number, count)
            engine.submit(chat(name, number, max_new_tokens=count))
        if step and dice.random() < 0.06:
            cancelled.add(dice.choice(sorted(asked)))
            engine.cancel(max(cancelled))

    said = drain(engine, act)
    assert set(asked) - cancelled <= set(said.ends)
    for name in said.ends:
        number, count = asked[name]
        assert said.text[name] == tokenizer.decode(alone(number)[:count], skip_special_tokens=True).rstrip("\ufffd")


def test_a_known_beginning_is_taken_from_the_prefix_cache() -> None:
    engine = shared_engine("float32")
    for name in ("first", "second"):
        engine.submit(chat(name, 1, max_new_tokens=2))
        end = drain(engine).ends[name]
    assert isinstance(end, Finished)
    assert end.usage.cached_tokens >= 16


def test_sampled_answers_are_reproducible_in_any_company() -> None:
    engine = shared_engine("float32")
    sampled = chat("s", 2, temperature=0.8, top_p=0.9, seed=7, max_new_tokens=12)
    engine.submit(sampled)
    text = drain(engine).text["s"]
    for n in range(4):
        engine.submit(chat(str(n), n, max_new_tokens=8))
    engine.step()
    engine.submit(sampled)
    assert drain(engine).text["s"] == text
    assert text


@pytest.mark.skipif(not devices.computes_bf16(), reason="this CPU does not compute in bf16")
def test_bf16_answers_differ_from_generate_only_at_near_ties() -> None:
    """Seven requests at once, so that both weight layouts are used as sequences come and go."""
    engine = ChatEngine(loaded("bfloat16"), ChatConfig(slots=8, prefill_chunk_tokens=64))
    exact, rough = reference("float32"), reference("bfloat16")
    requests = [chat(str(n), n, max_new_tokens=20) for n in range(len(QUESTIONS))]
    for each in requests:
        engine.submit(each)
    sequences = dict(engine._sequences)
    drain(engine)
    eos = sorted(rough.eos_token_ids)
    for each in requests:
        prompt = prompt_of(each, rough.tokenizer)
        ours = [token for token in sequences[each.request_id].output if token not in eos]
        theirs = generated(rough.model, prompt, 20, eos)
        place = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        if place is not None:
            with torch.inference_mode():
                logits = exact.model(torch.tensor([prompt + ours[:place]])).logits[0, -1]
            assert float(logits.max() - logits[ours[place]]) < NEAR_TIE
            assert float(logits.max() - logits[theirs[place]]) < NEAR_TIE
