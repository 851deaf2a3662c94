"""The chat model as a judge of Chinese texts: what it stops of what it should, and of what it should not.

    python -m benchmarks.judge [--model NAME] [--texts N]

Beside it what the built-in rules stop. The labelled texts (``chinese_texts.tsv``) were written for this; ordinary
dialogue is that of chatterbot-corpus.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.moderation_sets import text_sets
from generation.devices import engine_environment

if TYPE_CHECKING:
    from generation.moderation.types import Decision, Finding

LABELLED = Path(__file__).with_name("chinese_texts.tsv")


def labelled() -> tuple[list[str], list[str]]:
    """Texts to be stopped, and texts to be let through."""
    lines = [line.split("\t") for line in LABELLED.read_text("utf-8").splitlines() if not line.startswith("#")]
    return [text for label, text in lines if label != "safe"], [text for label, text in lines if label == "safe"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="the chat model")
    parser.add_argument("--texts", type=int, default=200, help="most texts of the dialogue")
    given = parser.parse_args()
    os.environ.update(engine_environment(0))
    from generation.chat.config import ChatConfig
    from generation.chat.engine import ChatEngine
    from generation.chat.loading import load
    from generation.moderation.judge import UNDECIDED, ChatJudge
    from generation.moderation.policy import default_policy
    from generation.moderation.rules import check_text
    from generation.moderation.shared_engine import SharedEngine

    config = ChatConfig(model=given.model)
    shared = SharedEngine(ChatEngine(load(config, lambda *_: None), config), answers_questions=True)
    judge = ChatJudge(shared.questions())
    policies = {name: default_policy(name) for name in ("balanced", "strict")}
    bad, good = labelled()
    dialogue = next(one.texts for one in text_sets(given.texts) if "chinese" in one.name)
    print(f"{'':<28}{'texts':>7}{'rules':>9}{'judge':>9}{'undecided':>11}")
    for name, texts in (
        ("labelled, to be stopped", bad),
        ("labelled, harmless", good),
        ("chatterbot-corpus", dialogue),
    ):
        found = judge.findings(texts)
        ruled = share(texts, lambda text: check_text(text, policies["balanced"]))
        judged = stopped(found, lambda each: policies["balanced"].decide("prompt", each))
        unsure = sum(any(finding.score == UNDECIDED for finding in each) for each in found) / len(found)
        print(f"{name:<28}{len(texts):>7}{ruled:>9.1%}{judged:>9.1%}{unsure:>11.1%}", flush=True)
    shared.close()


def share(texts: Sequence[str], decide: Callable[[str], Decision]) -> float:
    """Of texts, how many are stopped."""
    return sum(decide(text).action.stops for text in texts) / len(texts)


def stopped(found: Sequence[Sequence[Finding]], decide: Callable[[Sequence[Finding]], Decision]) -> float:
    """Likewise, of what a judge has found."""
    return sum(decide(each).action.stops for each in found) / len(found)


if __name__ == "__main__":
    main()
