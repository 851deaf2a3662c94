"""The chat engine with and without adapters, interleaved in one run: what a mixed batch costs everybody in it.

Users ask at once; nobody has an adapter, half of them share one, half of them have two in turn, all share one. The
adapters are random additions of rank 16 to every projection: what they say does not matter to what they cost. Ratios
carry over to other machines, absolute figures do not.

    python -m benchmarks.adapters [--rounds N] [--users 8] [--tokens 32] [--dtype auto]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from generation.devices import engine_environment

if TYPE_CHECKING:
    from generation.chat.adapters import Weights
    from generation.chat.engine import ChatEngine
    from generation.chat.loading import LoadedModel

RANK = 16
#: Who has which adapter, in turn.
MIXES: dict[str, tuple[str, ...]] = {
    "none": ("",),
    "half, one adapter": ("one", ""),
    "half, two adapters": ("one", "", "two", ""),
    "all, one adapter": ("one",),
}


class RandomAdapters:
    """One for every tenant with a name; see ``generation.chat.adapter_shelf.AdapterSource``."""

    def __init__(self, loaded: LoadedModel) -> None:
        import torch

        from generation.chat.adapters import dtype_of

        self._device = loaded.device
        self._dtype = dtype_of(loaded.device, loaded.dtype)
        self._sizes = {
            path: (module.in_features, module.out_features)
            for path, module in loaded.model.named_modules()
            if isinstance(module, torch.nn.Linear) and "layers." in path
        }

    def promoted(self, tenant: str) -> str | None:
        return tenant or None

    def weights(self, adapter_id: str) -> Weights:
        import torch

        from generation.chat.adapters import LowRank

        torch.manual_seed(len(adapter_id))
        options = {"dtype": self._dtype, "device": self._device}
        return {
            path: LowRank(torch.randn(RANK, size_in, **options) / 99, torch.randn(size_out, RANK, **options) / 99)  # type: ignore[arg-type]  # dtype and device
            for path, (size_in, size_out) in self._sizes.items()
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--users", type=int, nargs="+", default=[8])
    parser.add_argument("--tokens", type=int, default=32, help="of each answer")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    options = parser.parse_args()
    os.environ.update(engine_environment())  # before torch is imported: OpenMP reads it then
    from generation.chat.config import ChatConfig
    from generation.chat.engine import ChatEngine
    from generation.chat.loading import load
    from generation.torch_devices import set_threads

    config = ChatConfig(device="cpu", dtype=options.dtype, prefix_cache_tokens=0)
    threads = set_threads(config.threads)
    loaded = replace(load(config, lambda _stage, _share: None), eos_token_ids=frozenset())
    engine = ChatEngine(loaded, config, RandomAdapters(loaded))
    print(f"{loaded.name}, {loaded.dtype}, {threads} threads, rank {RANK}, {options.rounds} rounds interleaved")
    print(f"{'users':>5}  {'who has an adapter':<20}{'tokens/s':>10}{'of none':>9}")
    for users in options.users:
        seconds = _measure(engine, users, options.tokens, options.rounds)
        for name, runs in seconds.items():
            ratio = statistics.median(none / own for none, own in zip(seconds["none"], runs, strict=True))
            rate = users * options.tokens / statistics.median(runs)
            print(f"{users:>5}  {name:<20}{rate:>10.1f}{ratio:>9.2f}", flush=True)


def _measure(engine: ChatEngine, users: int, tokens: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each mix, round by round; one round more warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in MIXES}
    for number in range(rounds + 1):
        for name in list(MIXES)[:: 1 if number % 2 else -1]:
            took_s = _run(engine, users, tokens, MIXES[name])
            if number:
                seconds[name].append(took_s)
    return seconds


def _run(engine: ChatEngine, users: int, tokens: int, tenants: tuple[str, ...]) -> float:
    from generation.types import ChatRequest, Message, Origin, Sampling

    started_s = time.perf_counter()
    for number in range(users):
        question = (Message("user", f"Please tell me something about the number {number}, briefly."),)
        origin = Origin("job", tenants[number % len(tenants)], "user")
        sampling = Sampling(max_new_tokens=tokens, temperature=0)
        engine.submit(ChatRequest(str(number), question, sampling, origin=origin))
    while engine.busy:
        engine.step()
    return time.perf_counter() - started_s


if __name__ == "__main__":
    main()
