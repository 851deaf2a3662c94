"""/imagine in a guild: the real bot process, a real Valkey, a real worker of pictures, Discord at protocol level."""

from __future__ import annotations

import json

import pytest
import pytest_asyncio
import redis

from bots.delivery import wording
from tests import image_engine
from tests.fake_guild.bot import BotProcess, place, running
from tests.fake_guild.rules import Rules
from tests.fake_guild.server import FakeGuild, until
from tests.fake_guild.world import ALICE, BOB, MODERATOR, OWNER, Interaction, Message
from tests.image_jobs import image_config
from tests.valkey import ValkeyProcess
from tests.worker_processes import worker
from workers import keys

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def valkey():
    process = ValkeyProcess(persist=False).start()
    with worker(image_config(process.url, model="squares")):
        yield process
    process.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _setup(valkey):
    async with running(valkey.url, Rules(per_window=20), PALAVER_LIMITS__IMAGE__USER__BURST="100") as pair:
        yield pair


@pytest.fixture
def guild(_setup) -> FakeGuild:
    fake, _ = _setup
    vars(fake.rules).update(vars(Rules(per_window=20)))
    return fake


@pytest.fixture
def bot(_setup) -> BotProcess:
    return _setup[1]


def orders(**what: object) -> str:
    return json.dumps(what)


async def drawn(guild: FakeGuild, interaction: Interaction) -> Message:
    """The message of a command or a press, once its pictures are there."""

    def done() -> Message | None:
        message = guild.response(interaction)
        ended = message is not None and not message.loading and "Stop" not in message.buttons
        return message if ended and message.buttons else None

    return await until(done, "pictures")


async def test_imagine_shows_previews_and_then_pictures_with_all_that_belongs_to_them(guild):
    prompt = orders(step_s=0.8, what="fox")
    command = await guild.command("imagine", prompt=prompt, count=2, seed=7, channel=place(guild))
    seen = await until(
        lambda: (m := guild.response(command)) and m.files and "Stop" in m.buttons and m.content, "a preview"
    )
    assert "Drawing: step" in seen
    message = await drawn(guild, command)
    assert message.files == [image_engine.picture(prompt, 7), image_engine.picture(prompt, 8)]
    assert all("fox" in each["description"] for each in message.attachments), "alt text"
    assert "seed 7" in message.content
    assert set(message.buttons) == {
        "Vary 1", "Vary 2", "Upscale 1", "Upscale 2", "Re-roll", "More like this", "Edit prompt", "Show prompt",
        "Delete",
    }  # fmt: skip


async def test_buttons_draw_again_and_outlive_a_restart_of_the_bot(guild, bot):
    channel = place(guild)
    first = await drawn(guild, await guild.command("imagine", prompt="a fox", seed=3, channel=channel))
    bot.kill9()
    await bot.start()
    for label, count in (("Re-roll", 1), ("Vary 1", 4), ("More like this", 4), ("Upscale 1", 1)):
        message = await drawn(guild, await guild.press(first, first.buttons[label], BOB))
        assert len(message.files) == count, label
    assert first.files == [image_engine.picture("a fox", 3)], "the first ones stay"


async def test_a_form_edits_the_prompt(guild):
    first = await drawn(guild, await guild.command("imagine", prompt="a fox", seed=3, channel=place(guild)))
    press = await guild.press(first, first.buttons["Edit prompt"])
    await until(lambda: press.modal, "the form")
    assert press.modal["components"][0]["component"]["value"] == "a fox"
    message = await drawn(guild, await guild.submit(press, "a red fox"))
    assert "**a red fox**" in message.content


async def test_show_prompt_is_private_and_delete_is_the_askers_own(guild):
    message = await drawn(guild, await guild.command("imagine", prompt="a fox", negative="rain", channel=place(guild)))
    told = await guild.press(message, message.buttons["Show prompt"], BOB)
    await until(lambda: guild.whispers(told), "the prompt")
    assert "a fox" in guild.whispers(told)[0]
    assert "rain" in guild.whispers(told)[0]
    stranger = await guild.press(message, message.buttons["Delete"], BOB)
    await until(lambda: guild.whispers(stranger), "a refusal")
    assert message.id in guild.world.messages
    await guild.press(message, message.buttons["Delete"], ALICE)
    await until(lambda: message.id not in guild.world.messages, "the deletion")
    gone = await guild.press(message, message.buttons["Re-roll"], ALICE)
    await until(lambda: guild.whispers(gone), "a clear word")
    other = await drawn(guild, await guild.command("imagine", prompt="a cat", channel=place(guild)))
    await guild.press(other, other.buttons["Delete"], MODERATOR)
    await until(lambda: other.id not in guild.world.messages, "the deletion by a moderator")


async def test_show_brings_a_job_back_to_its_owner_alone(guild):
    channel = place(guild)
    message = await drawn(guild, await guild.command("imagine", prompt="a heron", seed=5, channel=channel))
    job_id = message.content.rpartition("Id `")[2].strip("`")
    again = await guild.command("show", id=job_id, channel=channel)
    shown = await drawn(guild, again)
    assert shown.files == message.files
    assert shown.visible_to == ALICE
    other = await guild.command("show", id=job_id, user=BOB, channel=channel)
    await until(lambda: guild.whispers(other), "a refusal")
    assert "no such job of yours" in guild.whispers(other)[0]
    typed = await guild.autocomplete("show", "id", "hero")
    await until(lambda: typed.choices, "suggestions")
    assert typed.choices[0]["value"] == job_id
    styles = await guild.autocomplete("imagine", "style", "fl")
    await until(lambda: styles.choices, "suggestions")
    assert styles.choices[0]["value"] == "flat"


async def test_a_picture_is_drawn_by_the_model_that_was_asked_for(guild):
    typed = await guild.autocomplete("imagine", "model", "squ")
    await until(lambda: typed.choices, "suggestions")
    assert [each["value"] for each in typed.choices] == ["squares"]
    message = await drawn(guild, await guild.command("imagine", prompt="a fox", model="squares", channel=place(guild)))
    assert message.files
    assert "model squares" in message.content
    other = await guild.command("imagine", prompt="a fox", model="circles", channel=place(guild))
    await until(lambda: guild.whispers(other), "a refusal")
    assert "The model circles does not run here. There is squares." in guild.whispers(other)[0]


async def test_buttons_whose_record_has_expired_say_so_privately(guild, valkey):
    channel = place(guild)
    message = await drawn(guild, await guild.command("imagine", prompt="an old fox", channel=channel))
    with redis.Redis.from_url(valkey.url) as client:
        client.delete(*client.keys(keys.request_record("*")))
    for label in ("Re-roll", "Show prompt", "Edit prompt", "Vary 1"):
        press = await guild.press(message, message.buttons[label])
        await until(lambda pressed=press: guild.whispers(pressed), f"a word about {label}")
        assert "no longer on record" in guild.whispers(press)[0]
    assert [each for each in guild.answers(channel=channel) if not each.visible_to] == [message]


async def test_stop_ends_a_drawing_within_a_step(guild):
    command = await guild.command("imagine", prompt=orders(step_s=1.0), count=2, channel=place(guild))
    message = await until(lambda: (m := guild.response(command)) and "Stop" in m.buttons and m, "progress")
    await guild.press(message, message.buttons["Stop"])
    await until(lambda: message.content == wording.STOPPED, "the stop")


async def test_a_picture_to_begin_from_is_fetched_and_others_are_refused(guild):
    channel, init = place(guild), image_engine.png(b"\x10\x20\x30", 8)
    command = await guild.command("imagine", prompt="a fox", seed=3, files={"image=start.png": init}, channel=channel)
    message = await drawn(guild, command)
    assert message.files == [image_engine.picture("a fox", 3, init)]
    bad = await guild.command("imagine", prompt="a fox", files={"image=start.txt": b"text"}, channel=channel)
    await until(lambda: guild.whispers(bad), "a refusal")
    assert "Only PNG" in guild.whispers(bad)[0]


async def test_private_pictures_are_private(guild):
    command = await guild.command("imagine", prompt="a fox", private=True, channel=place(guild))
    message = await drawn(guild, command)
    assert message.visible_to == ALICE
    again = await drawn(guild, await guild.press(message, message.buttons["Re-roll"]))
    assert again.visible_to == ALICE


async def test_pictures_that_are_too_large_for_the_place_are_made_smaller_or_explained(guild):
    guild.rules.max_file_bytes = 500
    command = await guild.command("imagine", prompt=orders(px=700), seed=1, channel=place(guild))
    message = await drawn(guild, command)
    assert len(message.files) == 1
    assert len(message.files[0]) <= 500
    guild.rules.max_file_bytes = 20
    command = await guild.command("imagine", prompt="a fox", seed=1, channel=place(guild))
    message = await drawn(guild, command)
    assert message.files == []
    assert "larger than files may be here" in message.content


async def test_a_failure_is_said_clearly(guild):
    command = await guild.command("imagine", prompt=orders(refuse="invalid_request"), channel=place(guild))
    message = await until(lambda: (m := guild.response(command)) and not m.loading and not m.buttons and m, "an end")
    assert message.content


async def test_an_expired_token_moves_the_pictures_into_the_channel(guild):
    guild.rules.token_life_s = 2.0
    channel = place(guild)
    command = await guild.command("imagine", prompt=orders(step_s=1.0), seed=4, channel=channel)
    first = await until(lambda: guild.response(command), "the acknowledgement")
    (message,) = await until(
        lambda: [m for m in guild.answers(channel=channel) if m.id != first.id and "Re-roll" in m.buttons], "pictures"
    )
    assert message.files == [image_engine.picture(orders(step_s=1.0), 4)]
    assert message.reference == first.id


async def test_privacy_delete_takes_the_pictures_with_it(guild, valkey):
    channel, user = place(guild), OWNER + 99
    message = await drawn(guild, await guild.command("imagine", prompt="a fox", user=user, channel=channel))
    job_id = message.content.rpartition("Id `")[2].strip("`")
    with redis.Redis.from_url(valkey.url) as client:
        before = len(client.keys("palaver:artifact:*"))
        command = await guild.command("privacy delete", user=user, channel=channel)
        await until(lambda: guild.whispers(command), "a confirmation")
        assert "1 image prompts" in guild.whispers(command)[0]
        assert len(client.keys("palaver:artifact:*")) < before
    gone = await guild.command("show", id=job_id, user=user, channel=channel)
    await until(lambda: guild.whispers(gone), "a refusal")
