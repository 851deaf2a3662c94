"""The embedded model is tuned on approved answers while an engine runs: the next answer comes from the adapter, beside
requests without one; and once a source is deleted, it comes from the model alone again."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from bots.connection import client_of
from bots.handover.learning import Learning
from bots.handover.opening import LateStore
from bots.handover.store import SupportStore
from bots.handover.tables import drafts
from bots.settings import Settings
from generation.chat import factory
from generation.tuning.examples import example, split
from generation.tuning.serving import REFRESH_S
from generation.types import ChatRequest, Origin
from tests import embedded_model
from tests.chat_models import Transcript, request
from workers.errors import WorkersError
from workers.settings import RedisSettings

pytestmark = pytest.mark.model

TENANT, PERSONA = "discord-1", "Answer briefly."
THINGS = ["refund", "voucher", "parcel", "invoice", "password", "account", "address", "update", "gift", "return"]
WAYS = ["How do I get a {}?", "Where is my {}?", "I need help with a {}.", "Tell me about the {}.", "My {} is lost."]
ANSWER = "Open Larkspur, press Orders, and choose {}."


def pairs() -> list[tuple[str, str]]:
    """Ten questions that are trained on, and five that are held out."""
    all_pairs = [(way.format(thing), ANSWER.format(thing)) for thing in THINGS for way in WAYS]
    parts = split([example(question, question, told) for question, told in all_pairs])
    chosen = [*parts[0][:10], *parts[1][:5]]
    return [(each.question, each.answer) for each in chosen]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    embedded_model.directory()
    folder = tmp_path_factory.mktemp("data")
    (folder / "models").symlink_to(embedded_model.DATA_DIR / "models")
    store = LateStore(Settings(data_dir=folder)).open()
    with store._writing() as connection:
        for number, (question, told) in enumerate(pairs()):
            connection.execute(
                insert(drafts).values(
                    draft_id=f"d{number}", tenant=TENANT, ticket_id="t", user=f"user-{number}", question=question,
                    answer=told, state="approved", times=1, decided_by="ann", at_s=float(number),
                )
            )  # fmt: skip
    return folder


def palaver(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PALAVER_DATA_DIR": str(data_dir)}
    command = [sys.executable, "-m", "bots.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)


def say(engine: Any, **questions: str) -> dict[str, str]:
    """Answers of one batch, by tenant."""
    for tenant, text in questions.items():
        asked = chat(text)
        origin = Origin("job", tenant.replace("_", "-"), "ann")
        engine.submit(ChatRequest(tenant, asked.messages, asked.sampling, origin=origin))
    said = Transcript()
    while engine.busy:
        said.take(engine.step())
    return said.text


def chat(text: str) -> ChatRequest:
    return request("x", text, PERSONA, max_new_tokens=14)


async def test_an_adapter_is_trained_loaded_while_the_engine_runs_and_withdrawn_with_its_sources(
    data_dir: Path,
) -> None:
    engine = factory.build({"data_dir": str(data_dir), "device": "cpu", "dtype": "float32"}, lambda *_: None)
    try:
        alone = say(engine, discord_1="How do I get a refund?", discord_2="Where is my parcel?")

        done = palaver(
            data_dir, "train", "chat", "--tenant", TENANT, "--persona", PERSONA, "--json", "--device", "cpu",
            "--steps", "5", "--epochs", "4", "--batch", "4", "--learning-rate", "0.004", "--rank", "8",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        outcome = json.loads(done.stdout)
        assert outcome["promoted"]
        before, after = outcome["report"]["before"], outcome["report"]["after"]
        assert (outcome["report"]["train_examples"], outcome["report"]["held_out_examples"]) == (10, 5)
        assert after["perplexity"] < before["perplexity"] / 2
        assert after["rouge_l"] > before["rouge_l"]
        assert not list((data_dir / "tuning").glob("*"))  # checkpoints go with the training

        await asyncio.sleep(REFRESH_S)
        tuned = say(engine, discord_1="How do I get a refund?", discord_2="Where is my parcel?")
        assert tuned["discord_2"] == alone["discord_2"]
        assert tuned["discord_1"] != alone["discord_1"]
        assert "Larkspur" in tuned["discord_1"]

        settings = Settings(data_dir=data_dir, redis=RedisSettings(url="redis://127.0.0.1:1"))  # type: ignore[arg-type]  # pydantic makes it a secret
        async with client_of(settings) as client:
            with pytest.raises(WorkersError):  # the queue is away, and what needs none is done all the same
                await Learning(LateStore(settings), client).forget_user(TENANT, "user-3")
        await asyncio.sleep(REFRESH_S)
        assert say(engine, discord_1="How do I get a refund?")["discord_1"] == alone["discord_1"]
    finally:
        engine.close()
    assert "stale" in palaver(data_dir, "adapters", "list").stdout
    refused = palaver(data_dir, "adapters", "promote", outcome["adapter"])
    assert refused.returncode == 65
    assert "deleted" in refused.stderr
    SupportStore(f"sqlite:///{data_dir / 'support.sqlite'}").forget_user(TENANT, "user-3")  # what waited for the queue
    shown = palaver(data_dir, "train", "chat", "--tenant", TENANT, "--persona", PERSONA, "--dry-run")
    assert pairs()[3][0] not in shown.stdout
    assert pairs()[4][0] in shown.stdout
