"""Moderation at its default thresholds on sets nobody here made, and what it costs a chat engine.

    python -m benchmarks.moderation [--quick] [--texts N] [--pictures N] [--rounds N] [--json FILE]

For texts and pictures it prints the share that is stopped: recall for attacks, false positives for the rest. For cost,
eight users talk to the embedded model with and without moderation, in turns within one run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks.moderation_sets import TextSet, pictures, text_sets
from generation.data_dir import default_data_dir
from generation.devices import engine_environment

if TYPE_CHECKING:
    from generation.moderation.moderator import Moderator
    from generation.types import Engine

BATCH = 16
USERS = 8
MOST_PIXELS = 20_000_000
ANSWER_TOKENS = 96
MOST_FALSE_POSITIVES = 0.01
LEAST_THROUGHPUT = 0.95


@dataclass(frozen=True)
class Line:
    """How one set fared."""

    name: str
    count: int
    stopped: float
    touched: float
    attacks: bool = False


def judged_texts(moderator: Moderator, one: TextSet) -> Line:
    """Share of a set that is stopped, and that anything is done about."""
    from generation.moderation.moderator import Passage
    from generation.moderation.policy import default_policy
    from generation.moderation.types import Action

    policy = default_policy()
    stopped = touched = 0
    texts = sorted(one.texts, key=len)
    for start in range(0, len(texts), BATCH):
        passages = [Passage(text[: policy.max_prompt_chars], policy) for text in texts[start : start + BATCH]]
        for decision in moderator.prompts(passages):
            stopped += decision.action.stops
            touched += decision.action is not Action.ALLOW
    return Line(one.name, len(texts), stopped / len(texts), touched / len(texts), one.attacks)


def judged_pictures(moderator: Moderator, files: list[Path]) -> Line:
    """Likewise for pictures."""
    from generation.moderation.policy import default_policy
    from generation.moderation.types import Action

    policy = default_policy()
    stopped = touched = read = 0
    for start in range(0, len(files), BATCH):
        encoded = [file.read_bytes() for file in files[start : start + BATCH] if readable(file)]
        for decision in moderator.pictures([(data, "", policy) for data in encoded]):
            read += 1
            stopped += decision.action.stops
            touched += decision.action is not Action.ALLOW
    return Line("openclipart-png", read, stopped / read, touched / read)


def readable(file: Path) -> bool:
    """Whether a picture is whole and of a sensible size; the set has some that are not."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.width * image.height < MOST_PIXELS
    except (OSError, Image.DecompressionBombError):
        return False


def show(lines: list[Line]) -> None:
    width = max(len(line.name) for line in lines) + 2
    print(f"{'':<{width}}{'texts':>8}{'stopped':>10}{'any action':>12}")
    for line in lines:
        mark = "recall" if line.attacks else "false positives"
        print(f"{line.name:<{width}}{line.count:>8,}{line.stopped:>10.2%}{line.touched:>12.2%}  {mark}")
    attacks = sum(line.stopped * line.count for line in lines if line.attacks)
    wrong = sum(line.stopped * line.count for line in lines if not line.attacks)
    total = sum(line.count for line in lines if line.attacks)
    if total:
        print(f"all attacks: recall {attacks / total:.1%}, precision {attacks / max(1, attacks + wrong):.1%}")
    for line in lines:
        if not line.attacks and line.stopped > MOST_FALSE_POSITIVES:
            print(f"goal of at most {MOST_FALSE_POSITIVES:.0%} false positives: missed by {line.name}")


class Timed:
    """A moderator whose CPU time is counted: unlike the clock, not disturbed by what else the machine does."""

    def __init__(self, moderator: Moderator) -> None:
        self._moderator = moderator
        self.cpu_s = 0.0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._moderator, name)

        def timed(*given: Any) -> Any:
            before = time.process_time()
            try:
                return method(*given)
            finally:
                self.cpu_s += time.process_time() - before

        return timed


def throughput(rounds: int, moderator: Moderator) -> tuple[float, float, float]:
    """What is left of the bare engine's tokens a second with moderation.

    Returns:
        By the clock, the median over rounds; by CPU time, where moderation's own is known exactly; and by that of whole
        rounds, again the median.
    """
    from generation.chat.config import ChatConfig
    from generation.chat.engine import ChatEngine
    from generation.chat.loading import load
    from generation.moderation.engine import ModeratedEngine
    from generation.moderation.policy import default_policy

    config = ChatConfig(slots=USERS, prefix_cache_tokens=0)
    bare = ChatEngine(load(config, lambda *_: None), config)
    timed = Timed(moderator)
    engines: list[Engine[Any]] = [bare, ModeratedEngine(bare, cast("Moderator", timed), default_policy())]
    for engine in engines:
        seconds_a_token(engine, 0)
    timed.cpu_s, all_cpu_s, ratios, whole = 0.0, 0.0, [], []
    for number in range(rounds):
        order = engines if number % 2 else engines[::-1]
        took, cpu_s = {}, {}
        for engine in order:
            before_s = time.process_time()
            took[id(engine)] = seconds_a_token(engine, number)
            cpu_s[id(engine)] = time.process_time() - before_s
        all_cpu_s += cpu_s[id(engines[1])]
        ratios.append(took[id(engines[0])] / took[id(engines[1])])
        whole.append(cpu_s[id(engines[0])] / cpu_s[id(engines[1])])
        print(f"  round {number + 1}: {ratios[-1]:.3f} of the bare engine", flush=True)
    return statistics.median(ratios), 1 - timed.cpu_s / all_cpu_s, statistics.median(whole)


def seconds_a_token(engine: Engine[Any], seed: int) -> float:
    """Seconds of one round, over the tokens it made."""
    from generation.types import ChatRequest, Finished, Message, Sampling

    questions = ("Tell me about the sea.", "How do I cook rice?", "What is a good name for a cat?", "Explain the moon.")
    started = time.perf_counter()
    for user in range(USERS):
        rules = Sampling(max_new_tokens=ANSWER_TOKENS, temperature=0.8, seed=seed * USERS + user)
        question = f"{questions[user % 4]} Answer in several short sentences. ({seed}, {user})"
        engine.submit(ChatRequest(f"{seed}-{user}", (Message("user", question),), rules))
    tokens = 0
    while engine.busy:
        tokens += sum(event.usage.completion_tokens for event in engine.step() if isinstance(event, Finished))
    return (time.perf_counter() - started) / max(1, tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer of everything")
    parser.add_argument("--texts", type=int, default=4_000, help="most texts of one set")
    parser.add_argument("--pictures", type=int, default=1_000)
    parser.add_argument("--half", choices=["all", "first", "second"], default="all", help="of each set of texts")
    parser.add_argument("--texts-only", action="store_true", help="no pictures and no throughput")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    given = parser.parse_args()
    if given.quick:
        given.texts, given.pictures, given.rounds = 400, 150, 2
    os.environ.update(engine_environment(0))
    from generation.moderation.config import ModerationConfig
    from generation.moderation.moderator import Moderator
    from generation.moderation.policy import default_policy

    moderator = Moderator(ModerationConfig(data_dir=default_data_dir()), print, images=True)
    print(f"strictness: balanced; injection threshold {default_policy().settings['injection'][0]}")  # type: ignore[index]  # a StrEnum
    lines = [judged_texts(moderator, one) for one in text_sets(given.texts, given.half)]
    if given.texts_only:
        show(lines)
        return
    lines.append(judged_pictures(moderator, pictures(given.pictures)))
    show(lines)
    print(f"chat throughput with moderation, {USERS} users:")
    by_clock, by_cpu, whole = throughput(given.rounds, moderator)
    verdict = "reached" if by_cpu >= LEAST_THROUGHPUT else "missed"
    print(f"by the clock {by_clock:.3f} of the bare engine (median)")
    print(f"by CPU time {by_cpu:.3f}; by that of whole rounds {whole:.3f} (median)")
    print(f"goal of at least {LEAST_THROUGHPUT}: {verdict}")
    if given.json:
        figures = {"lines": [asdict(line) for line in lines], "by_clock": by_clock, "by_cpu": by_cpu, "whole": whole}
        given.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
