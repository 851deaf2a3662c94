from __future__ import annotations

import pytest

from bots.delivery.buttons import Button
from bots.image_actions import Asker, again, with_seed
from bots.image_prompt import ImagePrompt
from workers.contract import ImageOptions, ReplyTo

REPLY = ReplyTo(front_end="front")
ASKED = ImagePrompt(
    "front", "t1", "c1", "u1", "k1", "a fox", REPLY, "rain", ImageOptions(seed=10, n=4, style="flat"), enhance=True
)
ASKER = Asker("t2", "c2", "u2", "k2", REPLY)


def pressed(action: str, index: int | None = None, asked: ImagePrompt = ASKED) -> ImagePrompt:
    return again(asked, Button(action, asked.job_id, index), ASKER)  # type: ignore[arg-type]


@pytest.mark.parametrize("action", ["vary", "upscale", "more", "reroll", "edit"])
def test_who_pressed_asks_on_an_own_account_for_the_same_thing(action):
    prompt = pressed(action, 0 if action in ("vary", "upscale") else None)
    assert (prompt.tenant, prompt.channel, prompt.user, prompt.key) == ("t2", "c2", "u2", "k2")
    assert (prompt.text, prompt.negative_text, prompt.options.style) == ("a fox", "rain", "flat")
    assert not prompt.enhance, "what was drawn is on record with its details"


def test_a_variation_stays_with_its_picture_and_a_new_roll_does_not():
    varied = pressed("vary", 2).options
    assert (varied.seed, varied.n) == (12, 4)
    assert varied.variation_seed is not None
    assert 0 < varied.variation_strength < pressed("more").options.variation_strength
    rolled = pressed("reroll").options
    assert rolled.seed != 10
    assert rolled.variation_seed is None


def test_upscaling_draws_the_one_picture_again():
    assert pressed("upscale", 3).options == ImageOptions(seed=13, n=1, style="flat", upscale=2)
    varied = pressed("vary", 2)
    again_ = pressed("upscale", 1, varied).options
    assert (again_.seed, again_.n) == (12, 1)
    assert again_.variation_seed == (varied.options.variation_seed or 0) + 1, "pictures of a variation differ by that"


def test_every_prompt_has_a_seed():
    assert with_seed(ImageOptions()).seed is not None
    assert with_seed(ImageOptions(seed=5)).seed == 5
