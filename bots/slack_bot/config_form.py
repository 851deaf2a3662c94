"""A workspace's configuration as a modal, and what was written into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bots.slack_bot.blocks import Block
from bots.slack_bot.modals import MOST_CHARS, text_of
from bots.tenant_config import Ceilings, TenantConfig

CONFIG_MODAL = "palaver_config"

_INPUT = "text"
_OPERATOR = "operator"
#: Settings that are written, with what stands above their field and below it.
_WRITTEN = {
    "persona": ("Persona: what conversations begin with", "Empty: the operator's."),
    "languages": ("Languages of answers", "Such as English, German. Empty: any."),
    "max_answer_tokens": ("Longest answer, in tokens", "Empty: the operator's."),
    "user_per_minute": ("Prompts a minute of one person", "Empty: the operator's."),
    "user_day_gpu_s": ("GPU-seconds of one person a day", "Empty: the operator's, which holds all the same."),
    "user_month_gpu_s": ("GPU-seconds of one person a month", "Likewise."),
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
#: There are no roles here that the bot can read, so people are named one by one.
_PEOPLE = "roles"
_TIERS = "tiers"
#: Begins the names of the fields of the operator's tiers.
_TIER = "tier_"
_MODEL = "model"
#: The platform's own limits of a menu's options.
_OPTIONS = 100
_OPTION_CHARS = 75
#: Settings that name one channel.
_ONE_PLACE = {
    "appeals_channel": ("Where moderators read appeals", "None: /moderation lists them for admins."),
    "team_channel": ("Where people take over from the bot", "None: nobody does."),
}


def view(config: TenantConfig, ceilings: Ceilings) -> dict[str, Any]:
    """The modal as things are.

    Args:
        config: What the workspace has decided.
        ceilings: What the operator allows: which models run now, and which tiers people can be given.
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
            _model(config, ceilings.models),
            *(_channels(name, config) for name in _PLACES),
            *(_channel(name, config) for name in _ONE_PLACE),
            _users(_PEOPLE, "Answer only these people", "None: everybody.", config.roles),
            *(_tier(name, config) for name in ceilings.tiers),
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
    found[_PEOPLE] = " ".join(_chosen_users(state, _PEOPLE)) or None
    if tiers := [block for block in state if block.startswith(_TIER)]:
        # Of several tiers, a person has the one that the operator lists last.
        given = {user: block.removeprefix(_TIER) for block in tiers for user in _chosen_users(state, block)}
        found[_TIERS] = ", ".join(f"{user}={tier}" for user, tier in given.items()) or None
    for name in _ONE_PLACE:
        found[name] = state.get(name, {}).get(_INPUT, {}).get("selected_conversation") or None
    return found


def block_of(submitted: dict[str, Any], setting: str) -> str:
    """The block that shows what is wrong with a setting."""
    state = submitted.get("state", {}).get("values", {})
    return next((block for block in state if block.startswith(_TIER)), setting) if setting == _TIERS else setting


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


def _users(block: str, label: str, hint: str, chosen: Sequence[str]) -> Block:
    element: Block = {"type": "multi_users_select"}
    return _field(block, label, element | ({"initial_users": list(chosen)} if chosen else {}), hint)


def _tier(name: str, config: TenantConfig) -> Block:
    members = [user for user, tier in config.tiers.items() if tier == name]
    return _users(_TIER + name, f"Who has the tier {name}", "With limits of their own, from the operator.", members)


def _chosen_users(state: dict[str, Any], block: str) -> list[str]:
    return list(state.get(block, {}).get(_INPUT, {}).get("selected_users") or [])
