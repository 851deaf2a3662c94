"""Other ways to answer the same requests, each driven as its documentation says, to compare the chat engine with."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel


@dataclass(frozen=True)
class Task:
    """One user's request: prompt tokens and the number of tokens to answer."""

    prompt: list[int]
    answer_tokens: int


@dataclass(frozen=True)
class Outcome:
    """Seconds for all tasks, and until each one's first token; all were asked at once."""

    wall_s: float
    ttft_s: list[float]


class Alternative(Protocol):
    """A way to answer a list of tasks."""

    name: str

    def run(self, tasks: list[Task]) -> Outcome:
        """Answer all."""
        ...


class Generate:
    """``model.generate`` on static batches, padded on the left; each batch runs as long as its longest answer."""

    def __init__(self, model: PreTrainedModel, batch: int) -> None:
        self.name = "one at a time (generate)" if batch == 1 else f"static batches of {batch} (generate)"
        self._model = model
        self._batch = batch

    def run(self, tasks: list[Task]) -> Outcome:
        started_s = time.perf_counter()
        ttft_s: list[float] = []
        for start in range(0, len(tasks), self._batch):
            self._answer(tasks[start : start + self._batch], started_s, ttft_s)
        return Outcome(time.perf_counter() - started_s, ttft_s)

    def _answer(self, tasks: list[Task], started_s: float, ttft_s: list[float]) -> None:
        width = max(len(task.prompt) for task in tasks)
        longest = max(task.answer_tokens for task in tasks)
        padding = [width - len(task.prompt) for task in tasks]
        given = torch.tensor([[0] * pad + task.prompt for pad, task in zip(padding, tasks, strict=True)])
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding])
        first: list[float] = []

        def note(ids: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
            first.append(time.perf_counter())
            return torch.zeros(len(ids), dtype=torch.bool)

        self._model.generate(
            given,
            attention_mask=mask,
            max_new_tokens=longest,
            min_new_tokens=longest,
            do_sample=False,
            pad_token_id=0,
            stopping_criteria=[note],
        )
        ttft_s += [first[0] - started_s] * len(tasks)


class TransformersBatching:
    """transformers' own continuous batching, with the settings that were fastest here."""

    name = "transformers' continuous batching"

    def __init__(self, model: PreTrainedModel, most_tokens: int) -> None:
        self._model = model
        self._blocks = 2 * most_tokens // 256 + 64

    def run(self, tasks: list[Task]) -> Outcome:
        settings = ContinuousBatchingConfig(
            num_blocks=self._blocks, page_size=256, max_batch_tokens=256, max_requests_per_batch=32
        )
        generation = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=256)
        manager: Any = self._model.init_continuous_batching(
            generation_config=generation, continuous_batching_config=settings
        )
        manager.start()
        try:
            started_s = time.perf_counter()
            for task in tasks:
                manager.add_request(
                    task.prompt, max_new_tokens=task.answer_tokens, record_timestamps=True, eos_token_id=-1
                )
            results = []
            while len(results) < len(tasks):
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    results.append(result)
                elif not manager.is_running():
                    raise RuntimeError("transformers' manager stopped")
            wall_s = time.perf_counter() - started_s
        finally:
            manager.stop(block=True)
            manager.destroy()
        counts = sorted(len(result.generated_tokens) for result in results)
        assert counts == sorted(task.answer_tokens for task in tasks)
        return Outcome(wall_s, [result.timestamps[0] - started_s for result in results])


class LlamaCpp:
    """llama.cpp's ``llama_decode`` with a sequence a user and the prompts in chunks, on the GGUF as it is."""

    name = "llama.cpp"

    def __init__(self, gguf: Path, users: int, context_tokens: int, threads: int) -> None:
        import llama_cpp  # an optional comparison: not a dependency

        self._api: Any = llama_cpp
        llama_cpp.llama_backend_init()
        self._quiet = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)  # kept alive: C code calls it
        llama_cpp.llama_log_set(self._quiet, None)
        self._model = llama_cpp.llama_model_load_from_file(str(gguf).encode(), llama_cpp.llama_model_default_params())
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = users * context_tokens
        settings.n_seq_max = users
        settings.n_batch = settings.n_ubatch = 512
        settings.n_threads = settings.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        self._batch = llama_cpp.llama_batch_init(512, 0, 1)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def run(self, tasks: list[Task]) -> Outcome:
        self._api.llama_memory_clear(self._api.llama_get_memory(self._context), True)
        started_s = time.perf_counter()
        filled = [0] * len(tasks)
        answers: list[list[int]] = [[] for _ in tasks]
        ttft_s = [0.0] * len(tasks)
        while any(len(answer) < task.answer_tokens for answer, task in zip(answers, tasks, strict=True)):
            for user, token in self._step(tasks, filled, answers):
                ttft_s[user] = ttft_s[user] or time.perf_counter() - started_s
                answers[user].append(token)
        return Outcome(time.perf_counter() - started_s, ttft_s)

    def _step(self, tasks: list[Task], filled: list[int], answers: list[list[int]]) -> list[tuple[int, int]]:
        """A token of each running sequence and up to 256 tokens of prompts; (user, next token) pairs."""
        self._batch.n_tokens = 0
        wanted: list[tuple[int, int]] = []
        budget = 256
        for user, task in enumerate(tasks):
            if answers[user] and len(answers[user]) < task.answer_tokens:
                wanted.append((user, self._add(answers[user][-1], filled[user], user, wants=True)))
                filled[user] += 1
        for user, task in enumerate(tasks):
            for token in task.prompt[filled[user] : filled[user] + budget] if not answers[user] else []:
                last = filled[user] == len(task.prompt) - 1
                place = self._add(token, filled[user], user, wants=last)
                filled[user] += 1
                budget -= 1
                if last:
                    wanted.append((user, place))
        if self._api.llama_decode(self._context, self._batch):
            raise RuntimeError("llama_decode failed")
        return [(user, self._best(place)) for user, place in wanted]

    def _add(self, token: int, position: int, user: int, *, wants: bool) -> int:
        batch, place = self._batch, self._batch.n_tokens
        batch.token[place], batch.pos[place] = token, position
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, user
        batch.logits[place] = wants
        batch.n_tokens += 1
        return int(place)

    def _best(self, place: int) -> int:
        logits = self._api.llama_get_logits_ith(self._context, place)
        import numpy as np  # comes with torch

        return int(np.ctypeslib.as_array(logits, shape=(self._vocabulary,)).argmax())


def llama_cpp_is_here() -> bool:
    """Whether llama-cpp-python can be imported."""
    return importlib.util.find_spec("llama_cpp") is not None
