"""``palaver train``: tune a chat model on what a tenant's people have approved."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bots import log, settings, tuning
from bots.connection import client_of
from bots.settings import Settings
from bots.tenant_config import TenantConfigs
from bots.terminal.stack import running_stack
from generation.errors import TuningError

CONVERSATIONS = "conversations"
_SHOWN_CHARS = 70


@click.group("train")
def command() -> None:
    """Tune a model for one tenant."""


@command.command("chat")
@click.option("--tenant", default="terminal", show_default=True, help="Whose answers.")
@click.option(
    "--from", "origins", multiple=True, default=(CONVERSATIONS,), show_default=True, metavar="SOURCE",
    help="conversations, or a JSONL file of dialogues; may be given several times.",
)  # fmt: skip
@click.option("--model", help="Which chat model; the configured one by default.")
@click.option("--persona", help="The system text of the dialogues; the tenant's own by default.")
@click.option("--promote/--no-promote", default=True, show_default=True, help="Have it answer, if it is better.")
@click.option("--dry-run", is_flag=True, help="Show what it would be trained on, masked, and stop.")
@click.option("--again", is_flag=True, help="Train although neither the set nor the recipe has changed.")
@click.option("--epochs", type=int, default=3, show_default=True, help="How often each dialogue is seen.")
@click.option("--steps", type=int, default=0, help="Most steps; 0 for as many as the epochs take.")
@click.option("--rank", type=int, default=16, show_default=True, help="Of the adapter.")
@click.option("--learning-rate", type=float, default=5e-4, show_default=True, help="Highest, after the warm-up.")
@click.option("--batch", type=int, default=4, show_default=True, help="Dialogues a step.")
@click.option("--max-tokens", type=int, default=1024, show_default=True, help="Longest dialogue.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same one gives the same adapter.")
@click.option("--device", help="cpu, cuda or cuda:N; as the chat model's by default.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def chat(
    tenant: str,
    origins: Sequence[str],
    model: str | None,
    persona: str | None,
    promote: bool,
    dry_run: bool,
    again: bool,
    device: str | None,
    as_json: bool,
    **recipe: Any,
) -> int | None:
    """Train a LoRA adapter on approved dialogues, measure it, and have it answer if it is better.

    A fifth of the dialogues is held out: on these the model is measured before and after. An adapter that is not better
    is kept and not promoted, and the exit code is 1. A training that was interrupted goes on where it was.
    """
    from generation.tuning.examples import prepared, split
    from generation.tuning.job import Job

    configured = settings.load()
    log.configure(configured.log_level)
    found = prepared(_gathered(configured, tenant, origins, persona))
    if not found:
        raise TuningError(
            f"{tenant} has no approved dialogues. Approve drafts (palaver knowledge drafts) or name a file with --from."
        )
    if dry_run:
        train_set, held_out = split(found)
        for name, part in (("train", train_set), ("held-out", held_out)):
            for each in part:
                _show_example(name, each.question, each.answer, as_json)
        click.echo(f"{len(train_set)} to train on, {len(held_out)} held out.", err=True)
        return None
    job = Job(
        tenant=tenant,
        model=model or configured.chat.model,
        data_dir=configured.data_dir,
        url=tuning.url_of(configured),
        device=device or configured.chat.device,
        dtype=configured.chat.dtype,
        threads=configured.chat.threads,
        examples=tuple(found),
        recipe=_recipe(recipe),
        again=again,
    )
    configured.data_dir.mkdir(parents=True, exist_ok=True)
    outcome = tuning.run(job)
    told = {**outcome, **_settled(configured, tenant, outcome, promote)}
    _show(told, as_json)
    return 1 if told["reasons"] else None


def _settled(configured: Settings, tenant: str, outcome: dict[str, Any], promote: bool) -> dict[str, Any]:
    """Promote what is better and has learnt from nothing that was deleted while it was trained."""
    reasons = list(outcome["report"]["reasons_against"])
    gone = tuning.deleted_sources(configured, tenant, outcome["adapter"])
    if gone:
        tuning.mark_stale(configured, tenant, gone)
        reasons.append("something that it learnt from was deleted meanwhile; train again")
    store = tuning.open_store(configured)
    try:
        answering = store.get(outcome["adapter"]).state == "promoted"
        if promote and not reasons and not answering:
            store.promote(outcome["adapter"])
            answering = True
    finally:
        store.close()
    return {"reasons": reasons, "promoted": answering}


def _recipe(options: dict[str, Any]) -> dict[str, Any]:
    return {
        "rank": options["rank"],
        "alpha": 2.0 * options["rank"],
        "learning_rate": options["learning_rate"],
        "epochs": options["epochs"],
        "max_steps": options["steps"],
        "batch_examples": options["batch"],
        "max_tokens": options["max_tokens"],
        "seed": options["seed"],
    }


def _gathered(configured: Settings, tenant: str, origins: Sequence[str], persona: str | None) -> list[Any]:
    from generation.tuning.examples import read_file

    found = []
    for origin in origins:
        if origin == CONVERSATIONS:
            system = _tenant_persona(configured, tenant) if persona is None else persona
            found += tuning.approved_dialogues(configured, tenant, system)
        elif Path(origin).is_file():
            found += read_file(Path(origin))
        else:
            raise TuningError(f"--from takes {CONVERSATIONS} or a JSONL file, and there is no file {origin}.")
    return found


def _tenant_persona(configured: Settings, tenant: str) -> str:
    """The system text of a tenant's new conversations.

    Raises:
        WorkersError: The server that keeps the tenant's configuration cannot be reached.
    """
    with running_stack(configured, keep=False, kinds=()):
        return asyncio.run(_read_persona(configured, tenant))


async def _read_persona(configured: Settings, tenant: str) -> str:
    async with client_of(configured) as client:
        config = await TenantConfigs(client.connection).of(tenant)
    return config.system_text(configured.conversation.persona) or configured.conversation.persona


def _show_example(part: str, question: str, answer: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"part": part, "question": question, "answer": answer}, ensure_ascii=False))
    else:
        texts = (" ".join(text.split())[:_SHOWN_CHARS] for text in (question, answer))
        click.echo("{:<9} Q: {}\n          A: {}".format(part, *texts))


def _show(outcome: dict[str, Any], as_json: bool) -> None:
    from generation.tuning.report import Report

    if as_json:
        click.echo(json.dumps(outcome))
        return
    report = Report.from_json(outcome["report"])
    click.echo(
        f"{outcome['adapter']}: trained on {report.train_examples} dialogues in {report.seconds:.0f} s "
        f"({report.steps} steps, loss {report.loss:.3f}), measured on {report.held_out_examples}"
    )
    click.echo(report.table())
    if outcome["outcome"] == "unchanged":
        click.echo("Neither the set nor the recipe has changed since; --again trains all the same.")
    if outcome["promoted"]:
        click.echo("It is promoted: answers come from it within seconds.")
    elif outcome["reasons"]:
        click.echo(f"It is not promoted: {'; '.join(outcome['reasons'])}.")
    else:
        click.echo(f"It is better, and waits: palaver adapters promote {outcome['adapter']}")
