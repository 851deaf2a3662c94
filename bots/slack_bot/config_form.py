"""A workspace's configuration as a modal, and what was written into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bots.slack_bot.blocks import Block
from bots.slack_bot.modals import MOST_CHARS, text_of
from bots.tenant_config import TenantConfig

CONFIG_MODAL = "palaver_config"

_INPUT = "text"
_OPERATOR = "operator"
#: Settings that are written, with what stands above their field and below it.
_WRITTEN = {
    "persona": ("Persona: what conversations begin with", "Empty: the operator's."),
    "languages": ("Languages of answers", "Such as English, German. Empty: any."),
    "max_answer_tokens": ("Longest answer, in tokens", "Empty: the operator's."),
    "user_per_minute": ("Prompts a minute of one person", "Empty: the operator's."),
    "handover_topics": ("What only people answer", "Words with commas between."),
    "working_hours": ("When people are there", "Such as Mon-Fri 09:00-17:00 Europe/Berlin. Empty: always."),
}
#: Settings that are chosen: value as the configuration reads it -> what is written beside it.
_CHOSEN = {
    "images": ("Pictures", {"on": "Pictures may be drawn", "off": "No pictures"}),
    "moderation": (
        "Moderation",
        {_OPERATOR: "As the operator has it", "relaxed": "Relaxed", "balanced": "Balanced", "strict": "Strict"},
    ),
}
#: Settings that name channels, likewise.
_PLACES = {
    "channels": ("Answer only in these channels", "None: in all."),
    "support_channels": ("Answer from documents in these channels", "Mentions there quote what I have been given."),
}
_MODEL = "model"
#: The platform's own limits of a menu's options.
_OPTIONS = 100
_OPTION_CHARS = 75
#: Settings that name one channel.
_ONE_PLACE = {
    "appeals_channel": ("Where moderators read appeals", "None: /moderation lists them for admins."),
    "team_channel": ("Where people take over from the bot", "None: nobody does."),
}


def view(config: TenantConfig, models: Sequence[str]) -> dict[str, Any]:
    """The modal as things are.

    Args:
        config: What the workspace has decided.
        models: Chat models that run now.
    """
    fields = [_written(name, config) for name in _WRITTEN] + [_chosen(name, config) for name in _CHOSEN]
    return {
        "type": "modal",
        "callback_id": CONFIG_MODAL,
        "title": _plain("This workspace"),
        "submit": _plain("Save"),
        "close": _plain("Cancel"),
        "blocks": [
            *fields,
            _model(config, models),
            *(_channels(name, config) for name in _PLACES),
            *(_channel(name, config) for name in _ONE_PLACE),
        ],
    }


def values(submitted: dict[str, Any]) -> dict[str, str | None]:
    """What was submitted, as the configuration reads it; None for what is left to the operator."""
    state = submitted.get("state", {}).get("values", {})
    found: dict[str, str | None] = {name: text_of(submitted, name).strip() or None for name in _WRITTEN}
    for name in _CHOSEN:
        chosen = (state.get(name, {}).get(_INPUT, {}).get("selected_option") or {}).get("value")
        found[name] = None if chosen == _OPERATOR else chosen
    model = (state.get(_MODEL, {}).get(_INPUT, {}).get("selected_option") or {}).get("value")
    found[_MODEL] = None if model == _OPERATOR else model
    for name in _PLACES:
        found[name] = " ".join(state.get(name, {}).get(_INPUT, {}).get("selected_channels") or []) or None
    for name in _ONE_PLACE:
        found[name] = state.get(name, {}).get(_INPUT, {}).get("selected_conversation") or None
    return found


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text}


def _field(name: str, label: str, element: Block, hint: str = "") -> Block:
    block: Block = {
        "type": "input",
        "block_id": name,
        "optional": True,
        "label": _plain(label),
        "element": element | {"action_id": _INPUT},
    }
    return block | {"hint": _plain(hint)} if hint else block


def _written(name: str, config: TenantConfig) -> Block:
    label, hint = _WRITTEN[name]
    value = getattr(config, name)
    shown = ", ".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else value
    element: Block = {"type": "plain_text_input", "multiline": name == "persona", "max_length": MOST_CHARS}
    return _field(name, label, element | ({"initial_value": str(shown)} if shown else {}), hint)


def _chosen(name: str, config: TenantConfig) -> Block:
    label, choices = _CHOSEN[name]
    value = getattr(config, name)
    now = ("on" if value else "off") if isinstance(value, bool) else value
    options: dict[str, Block] = {key: {"text": _plain(text), "value": key} for key, text in choices.items()}
    chosen = options[now or _OPERATOR]
    element: Block = {"type": "radio_buttons", "options": [*options.values()], "initial_option": chosen}
    return _field(name, label, element)


def _model(config: TenantConfig, models: Sequence[str]) -> Block:
    """A menu of the models that run, and of the chosen one even while it does not."""
    names = [name for name in dict.fromkeys([*models, config.model]) if name and len(name) <= _OPTION_CHARS]
    first = {"text": _plain("As the operator has it"), "value": _OPERATOR}
    options = {name: {"text": _plain(name), "value": name} for name in names[: _OPTIONS - 1]}
    element: Block = {"type": "static_select", "options": [first, *options.values()]}
    return _field(_MODEL, "Chat model", element | {"initial_option": options.get(config.model, first)})


def _channels(name: str, config: TenantConfig) -> Block:
    label, hint = _PLACES[name]
    element: Block = {"type": "multi_channels_select"}
    if chosen := getattr(config, name):
        element["initial_channels"] = list(chosen)
    return _field(name, label, element, hint)


def _channel(name: str, config: TenantConfig) -> Block:
    label, hint = _ONE_PLACE[name]
    element: Block = {"type": "conversations_select", "filter": {"include": ["public", "private"]}}
    if chosen := getattr(config, name):
        element["initial_conversation"] = chosen
    return _field(name, label, element, hint)
