"""What the buttons under pictures ask for: a new prompt made of the one that is on record.

Every image prompt is given its seed when it is taken, and picture ``i`` has the seed ``seed + i``. So a button needs
nothing of the result: it works when the pictures themselves have long expired.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from bots.delivery.buttons import Button
from bots.image_prompt import ImagePrompt
from workers.contract import ImageOptions, ReplyTo

MAX_PICTURES = 4
_SEED_BITS = 31
_SLIGHT = 0.25
_STRONG = 0.6


@dataclass(frozen=True, slots=True)
class Asker:
    """Who pressed, where, and by which event.

    Attributes:
        tenant: On whose account.
        channel: Where.
        user: Who.
        key: The event's own id.
        reply: Where the pictures go.
    """

    tenant: str
    channel: str
    user: str
    key: str
    reply: ReplyTo


def with_seed(options: ImageOptions) -> ImageOptions:
    """The same options with a seed, drawn now unless there is one."""
    return options if options.seed is not None else options.model_copy(update={"seed": secrets.randbits(_SEED_BITS)})


def again(asked: ImagePrompt, button: Button, asker: Asker, text: str | None = None) -> ImagePrompt:
    """What a button asks for.

    Args:
        asked: The prompt on record.
        button: Vary, re-roll, upscale, more or edit.
        asker: On whose behalf.
        text: With edit, the new prompt.

    Returns:
        The new prompt, with a seed.
    """
    prompt = replace(
        asked,
        tenant=asker.tenant,
        channel=asker.channel,
        user=asker.user,
        key=asker.key,
        reply=asker.reply,
        text=asked.text if text is None else text,
        enhance=False,
    )
    changes = _changes(asked.options, button)
    return replace(prompt, options=asked.options.model_copy(update=changes))


def _changes(options: ImageOptions, button: Button) -> dict[str, object]:
    fresh = secrets.randbits(_SEED_BITS)
    index = button.index or 0
    varied = options.variation_seed is not None and options.variation_strength > 0
    # Pictures of one request differ by their seed or, where one picture is varied, by the seed of the variation.
    seed = (options.seed or 0) + (0 if varied else index)
    if button.action in ("vary", "more"):
        strength = _SLIGHT if button.action == "vary" else _STRONG
        return {"seed": seed, "n": MAX_PICTURES, "variation_seed": fresh, "variation_strength": strength, "upscale": 1}
    if button.action == "upscale":
        # The picture is drawn again from its seeds and enlarged: nothing of it needs to have been kept.
        variation = (options.variation_seed or 0) + index if varied else None
        return {"seed": seed, "n": 1, "variation_seed": variation, "upscale": 2 if options.upscale == 1 else 4}
    return {"seed": fresh, "variation_seed": None, "variation_strength": 0.0}
