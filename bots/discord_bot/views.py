"""Buttons and the form to edit a prompt. Nothing of them is kept in memory: their ids say all, so they never die."""

from __future__ import annotations

from typing import Any

import discord

from bots.delivery.buttons import Button
from bots.delivery.content import View

#: The form's field; its own id, so that the answer can be read after a restart.
PROMPT_FIELD = "prompt"
_LONGEST_PROMPT_CHARS = 4_000
_ROW = 5
_STYLES = {"stop": discord.ButtonStyle.danger, "delete": discord.ButtonStyle.danger}


class _Button(discord.ui.Button[discord.ui.View]):
    """A button that the library keeps no track of: presses arrive as interactions, see ``bots.discord_bot.presses``."""

    def is_dispatchable(self) -> bool:
        """Not by the library."""
        return False


def buttons(view: View) -> discord.ui.View | None:
    """The platform's form of a view's buttons, those of a kind in a row; None if there are none."""
    if not view.buttons:
        return None
    made = discord.ui.View(timeout=None)
    row, column, last = 0, 0, view.buttons[0]
    for button in view.buttons:
        # Vary 1 to 4, upscale 1 to 4, and the rest: each in a row of its own.
        kind, before = (each.action if each.index is not None else "" for each in (button, last))
        if column == _ROW or kind != before:
            row, column = row + 1, 0
        made.add_item(_made(button, row))
        column, last = column + 1, button
    return made


def _made(button: Button, row: int) -> _Button:
    style = _STYLES.get(button.action, discord.ButtonStyle.secondary)
    return _Button(style=style, label=button.label, custom_id=button.id, row=row)


def prompt_form(
    button: Button, text: str, title: str = "Edit the prompt", label: str = "What to draw"
) -> discord.ui.Modal:
    """The form in which a prompt, or an answer, is edited.

    Args:
        button: What was pressed; the answer comes back under its id.
        text: The prompt as it is.
        title: Above the form.
        label: Above the field.
    """
    form = discord.ui.Modal(title=title, custom_id=button.id, timeout=60.0)
    field: discord.ui.TextInput[discord.ui.Modal] = discord.ui.TextInput(
        style=discord.TextStyle.paragraph,
        custom_id=PROMPT_FIELD,
        default=text[:_LONGEST_PROMPT_CHARS],
        max_length=_LONGEST_PROMPT_CHARS,
    )
    form.add_item(discord.ui.Label(text=label, component=field))
    return form


def form_answer(interaction: discord.Interaction) -> str:
    """What was written into the form; empty if nothing was."""
    data: Any = interaction.data or {}
    pending: list[Any] = list(data.get("components", []))
    while pending:
        part = pending.pop()
        if part.get("custom_id") == PROMPT_FIELD:
            return str(part.get("value", "")).strip()
        pending += [*part.get("components", []), *([part["component"]] if "component" in part else [])]
    return ""
