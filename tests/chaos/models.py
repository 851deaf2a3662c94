"""Real models among the workers of the long form: what they are asked, and what they answer when they are alone.

``python -m tests.chaos.models`` prints the answers of an engine that takes one question after the other.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from generation.data_dir import default_data_dir
from tests import embedded_model
from workers.contract import ChatBody, ChatMessage, ChatOptions, ImageBody, ImageOptions

#: In float32 greedy answers are the same in whatever company; see ``tests/unit/test_chat_real_model.py``.
CHAT_OPTIONS: dict[str, object] = {
    "model": embedded_model.NAME, "data_dir": str(embedded_model.DATA_DIR), "device": "cpu", "dtype": "float32",
    "slots": 8,
}  # fmt: skip
IMAGE_OPTIONS: dict[str, object] = {"data_dir": str(default_data_dir()), "device": "cpu"}
QUESTIONS = (
    "What is the capital of France?",
    "Say hello in three languages.",
    "Why is the sky blue?",
    "Name a colour.",
    "What is two plus two?",
    "How do I boil an egg?",
    "Write a line about the sea.",
    "Who wrote Hamlet?",
)
TOKENS = 12
#: One picture in so many steps.
STEPS = 2


def chat_body(question: str) -> ChatBody:
    options = ChatOptions(max_new_tokens=TOKENS, temperature=0)
    return ChatBody(messages=(ChatMessage(role="user", content=question),), options=options)


def image_body(seed: int) -> ImageBody:
    options = ImageOptions(num_inference_steps=STEPS, seed=seed, preview_every_steps=0)
    return ImageBody(kind="image", prompt="a red apple", options=options)


def alone() -> dict[str, str]:
    """What the engine answers to each question without any company; in a process of its own, for it needs torch."""
    command = [sys.executable, "-m", "tests.chaos.models"]
    said: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return said


def main() -> None:
    """Ask one after the other."""
    from generation.chat.factory import build
    from generation.types import Delta
    from workers.engine_process import chat_request

    embedded_model.directory()
    engine: Any = build(CHAT_OPTIONS, lambda *_: None)
    answers: dict[str, str] = {}
    for question in QUESTIONS:
        engine.submit(chat_request("r", chat_body(question).model_dump(), None))
        pieces: list[str] = []
        while engine.busy:
            pieces += [event.text for event in engine.step() if isinstance(event, Delta)]
        answers[question] = "".join(pieces).strip()
    engine.close()
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main()
