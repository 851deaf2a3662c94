"""``palaver knowledge templates``: approved answers that are given word for word."""

from __future__ import annotations

import json
from pathlib import Path

import click

from bots.commands.opened import JSON, TENANT, opened
from bots.terminal.session import local_user
from generation.errors import InvalidRequestError


@click.group("templates")
def command() -> None:
    """Approved answers with slots, for what must be said word for word."""


@command.command("add")
@click.argument("template_id")
@click.option("--question", "questions", multiple=True, required=True, help="How it is asked for; several are better.")
@click.option("--text", help="What is said, with slots as {order_number}.")
@click.option("--file", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The text's file.")
@click.option("--slot", "slots", multiple=True, metavar="NAME=PATTERN", help="A regular expression without groups.")
@click.option("--ask", "asks", multiple=True, metavar="NAME=QUESTION", help="How a slot is asked for when missing.")
@TENANT
@JSON
def add(
    template_id: str, questions: tuple[str, ...], text: str | None, file: Path | None, slots: tuple[str, ...],
    asks: tuple[str, ...], tenant: str, as_json: bool,
) -> None:  # fmt: skip
    """Add the template TEMPLATE_ID, or replace it.

    For example: templates add order-status --question "Where is my order?" --text "Order {number} is on its way."
    --slot "number=[A-Z]{2}-[0-9]{4}" --ask "number=Which order? Its number looks like AB-1234."
    """
    from generation.retrieval.templates import Slot, Template, validated

    if (text is None) == (file is None):
        raise InvalidRequestError("Give the text, either by --text or by --file.")
    said = text if text is not None else file.read_text("utf-8").strip() if file is not None else ""
    asked = dict(map(_pair, asks))
    known = tuple(
        Slot(name, pattern, asked.get(name, f"{name.replace('_', ' ').capitalize()}?"))
        for name, pattern in map(_pair, slots)
    )
    template = validated(Template(template_id, questions, said, known))
    with opened(tenant) as knowledge:
        knowledge.add_template(template, local_user())
    click.echo(json.dumps({"template_id": template_id}) if as_json else f"{template_id} is said from now on.")


@command.command("list")
@TENANT
@JSON
def list_templates(tenant: str, as_json: bool) -> None:
    """List the templates."""
    with opened(tenant) as knowledge:
        for each in knowledge.templates():
            slots = {slot.name: slot.pattern for slot in each.slots}
            told = {"template_id": each.template_id, "questions": each.questions, "text": each.text, "slots": slots}
            line = f"{each.template_id}  {' | '.join(each.questions)}\n  {each.text}"
            click.echo(json.dumps(told, ensure_ascii=False) if as_json else line)


@command.command("remove")
@click.argument("template_id")
@TENANT
def remove(template_id: str, tenant: str) -> int:
    """Remove the template TEMPLATE_ID."""
    with opened(tenant) as knowledge:
        if knowledge.remove_template(template_id):
            click.echo(f"{template_id} is removed.")
            return 0
    click.echo(f"palaver: there is no template {template_id}.", err=True)
    return 66


def _pair(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not equals or not value:
        raise InvalidRequestError(f"{given!r} is not NAME=VALUE.")
    return name.strip(), value
