"""Pictures in the Slack front-end: commands, buttons and modals, with the real process and a real worker."""

from __future__ import annotations

import asyncio
import json

import pytest
import pytest_asyncio

from tests.bot_process import BotProcess, running
from tests.fake_workspace.content import Message
from tests.fake_workspace.rules import Rules
from tests.fake_workspace.server import FakeWorkspace
from tests.image_engine import picture, png
from tests.image_jobs import image_config
from tests.slack_answers import is_complete
from tests.valkey import ValkeyProcess
from tests.worker_processes import worker

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

SLOW = json.dumps({"step_s": 0.4})
QUICK = {"PALAVER_SLACK__LEASE_S": "1.5"}


@pytest.fixture(scope="module")
def queue():
    server = ValkeyProcess(persist=False).start()
    with worker(image_config(server.url, model="squares")):
        yield server
    server.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slack(queue):
    # Tiers are what other tests are about: here, pictures follow one another quickly.
    async with running(queue.url, Rules(enforce_tiers=False), **QUICK) as pair:
        yield pair


@pytest.fixture
def fake(slack) -> FakeWorkspace:
    return slack[0]


def shown(fake: FakeWorkspace, message: Message) -> list[bytes | None]:
    ids = [block["slack_file"]["id"] for block in message.blocks if block["type"] == "image"]
    return [fake.uploads[each].data for each in ids]


async def drawn(fake: FakeWorkspace, channel: str, thread: str | None = None, count: int = 1) -> list[Message]:
    """The messages with finished pictures."""

    def there() -> list[Message]:
        found = [each for each in fake.thread(channel, thread) if is_complete(each) and shown(fake, each)]
        return found if len(found) >= count else []

    found: list[Message] = await fake.wait(there, f"{count} pictures in {channel}")
    return found


async def test_imagine_draws_with_its_flags_and_alt_texts(fake):
    ack = await fake.command("U1", "C1", "/imagine", "a red fox --ar 16:9 --n 2 --seed 7")
    assert ack.ok
    assert "Drawing" in fake.whispers("U1")[0].body
    (message,) = await drawn(fake, "C1")
    assert shown(fake, message) == [picture("a red fox", 7), picture("a red fox", 8)]
    alts = [block["alt_text"] for block in message.blocks if block["type"] == "image"]
    assert alts == ["Drawn by AI: a red fox, picture 1 of 2", "Drawn by AI: a red fox, picture 2 of 2"]
    assert all(upload.alt_txt for upload in fake.uploads.values())
    assert "seed 7" in message.body
    assert fake.tokens_elsewhere == []


@pytest.mark.parametrize(
    ("text", "told"), [("a fox --n 9", "1 to 8"), ("a fox --sed 3", "did you mean --seed"), ("", "Say what")]
)
async def test_a_bad_flag_is_explained_privately_and_nothing_is_drawn(fake, text, told):
    before = len(fake.messages)
    await fake.command("U2", "C2", "/imagine", text)
    (hint,) = fake.messages[before:]
    assert hint.ephemeral_for == "U2"
    assert told in hint.body
    assert fake.thread("C2", None) == []


async def test_progress_is_shown_with_previews_that_are_cleared_away(fake):
    await fake.command("U3", "C3", "/imagine", SLOW + " --steps 12 --seed 1")
    message = await fake.wait(lambda: [m for m in fake.thread("C3", None) if "step" in m.body], "progress")
    await fake.wait(lambda: shown(fake, message[0]), "a preview")
    before = {block["slack_file"]["id"] for block in message[0].blocks if block["type"] == "image"}
    (done,) = await drawn(fake, "C3")
    assert done is message[0]
    await fake.wait(lambda: not before & fake.uploads.keys(), "previews to be deleted")
    assert len(shown(fake, done)) == 1


async def test_a_drawing_can_be_stopped(fake):
    await fake.command("U4", "C4", "/imagine", SLOW + " --steps 100")
    message = await fake.wait(lambda: [m for m in fake.thread("C4", None) if m.buttons], "a stop button")
    await fake.press("U4", message[0], "Stop")
    await fake.wait(lambda: message[0].body.endswith("Stopped."), "the end")


@pytest.mark.parametrize("label", ["Vary 2", "Re-roll", "Upscale 1", "More like this"])
async def test_buttons_draw_again(fake, label):
    channel = f"C5{label[0]}{label[-1]}".upper()
    await fake.command("U5", channel, "/imagine", "a blue bird --n 2 --seed 5")
    (first,) = await drawn(fake, channel)
    assert (await fake.press("U6", first, label)).ok
    found = await drawn(fake, channel, count=2)
    assert len(found) == 2
    assert "a blue bird" in found[1].body


@pytest.mark.kill
async def test_buttons_outlive_a_restart(slack):
    fake, bot = slack
    await fake.command("U7", "C7", "/imagine", "a green door --seed 3")
    (first,) = await drawn(fake, "C7")
    bot.kill9()
    await bot.start()
    await fake.press("U7", first, "Re-roll")
    assert len(await drawn(fake, "C7", count=2)) == 2


@pytest.mark.kill
async def test_a_front_end_that_is_killed_while_drawing_shows_the_picture_once(slack):
    fake, bot = slack
    prompt = json.dumps({"step_s": 0.25})
    await fake.command("U8", "C8", "/imagine", prompt + " --steps 10 --seed 4")
    await fake.wait(lambda: fake.thread("C8", None), "a placeholder")
    bot: BotProcess
    bot.kill9()
    await bot.start()
    (message,) = await drawn(fake, "C8")
    assert shown(fake, message) == [picture(prompt, 4)]
    assert len(fake.thread("C8", None)) == 1


async def test_only_ones_own_pictures_can_be_deleted(fake):
    await fake.command("U9", "C9", "/imagine", "a yellow hat --seed 9")
    (message,) = await drawn(fake, "C9")
    files = [block["slack_file"]["id"] for block in message.blocks if block["type"] == "image"]
    await fake.press("U10", message, "Delete")
    (told,) = await fake.wait(lambda: fake.whispers("U10"), "why not")
    assert "Only the person who asked" in told.body
    await fake.press("U9", message, "Delete")
    await fake.wait(lambda: message.deleted and not set(files) & fake.uploads.keys(), "it to be gone")


async def test_a_prompt_can_be_edited_in_a_modal(fake):
    await fake.command("U11", "C11", "/imagine", "a grey wolf --n 2 --seed 11")
    (message,) = await drawn(fake, "C11")
    await fake.press("U12", message, "Edit prompt")
    view = await fake.wait(lambda: [v for v in fake.views.values() if v["user"] == "U12"], "a modal")
    assert view[0]["blocks"][0]["element"]["initial_value"] == "a grey wolf --n 2"
    wrong = await fake.submit("U12", view[0], {"prompt": "a white wolf --n 99"})
    assert "1 to 8" in wrong.payload["errors"]["prompt"]
    right = await fake.submit("U12", view[0], {"prompt": "a white wolf --seed 12"})
    assert not right.payload
    again = await fake.submit("U12", view[0], {"prompt": "a white wolf --seed 12"})
    assert again.ok
    found = await drawn(fake, "C11", count=2)
    assert shown(fake, found[1]) == [picture("a white wolf", 12)]
    await asyncio.sleep(0.5)
    assert len(fake.thread("C11", None)) == 2, "the same modal twice is one drawing"


async def test_a_modal_that_comes_too_late_is_explained(fake):
    await fake.command("U13", "C13", "/imagine", "a pink cake --seed 13")
    (message,) = await drawn(fake, "C13")
    fake.rules.trigger_life_s = -1.0
    await fake.press("U13", message, "Edit prompt")
    fake.rules.trigger_life_s = 3.0
    await fake.wait(lambda: [w for w in fake.whispers("U13") if "too long" in w.body], "an explanation")
    fake.faults.limited["views.open"], fake.faults.limited["chat.postEphemeral"] = 1, 1
    fake.rules.response_url_life_s = 0.0  # so that it is told in the channel, which takes nothing at first, either
    await fake.press("U13", message, "Edit prompt")
    await fake.wait(lambda: [w for w in fake.whispers("U13") if "again in a moment" in w.body], "what to do")
    fake.rules.response_url_life_s = 1800.0


async def test_the_prompt_can_be_read(fake):
    await fake.command("U14", "C14", "/imagine", "a <!here> sign --seed 14")
    (message,) = await drawn(fake, "C14")
    await fake.press("U15", message, "Show prompt")
    (told,) = await fake.wait(lambda: fake.whispers("U15"), "the prompt")
    assert "--seed 14" in told.body
    assert fake.pings == []


async def test_a_picture_from_a_message(fake):
    ts = await fake.say("U16", "C16", "three boats on a lake")
    message = fake.find("C16", ts)
    assert message
    await fake.shortcut("U17", message, "imagine_message")
    view = await fake.wait(lambda: [v for v in fake.views.values() if v["user"] == "U17"], "a modal")
    assert view[0]["blocks"][0]["element"]["initial_value"] == "three boats on a lake"
    await fake.submit("U17", view[0], {"prompt": "three boats on a lake --seed 17"})
    (drawing,) = await drawn(fake, "C16", ts)
    assert shown(fake, drawing) == [picture("three boats on a lake", 17)]


async def shared(
    fake: FakeWorkspace, user: str, channel: str, url: str | None = None, media: str = "image/png"
) -> Message:
    """A message with a picture in it."""
    ts = await fake.say(user, channel, "as this", files=[fake.share("start.png", png(b"\x10\x20\x30", 8), media, url)])
    message = fake.find(channel, ts)
    assert message
    await fake.shortcut(user, message, "imagine_message")
    view = await fake.wait(lambda: [v for v in fake.views.values() if v["user"] == user], "a modal")
    assert (await fake.submit(user, view[0], {"prompt": "a boat --seed 18"})).ok
    return message


async def test_a_picture_is_where_a_drawing_begins(fake):
    message = await shared(fake, "U18", "C18")
    (drawing,) = await drawn(fake, "C18", message.ts)
    assert shown(fake, drawing) == [picture("a boat", 18, png(b"\x10\x20\x30", 8))]


async def test_a_picture_that_lies_elsewhere_is_not_fetched(fake):
    await shared(fake, "U19", "C19", "https://files.example.com/start.png")
    (told,) = await fake.wait(lambda: fake.whispers("U19"), "why not")
    assert "only fetched from Slack" in told.body
    assert fake.tokens_elsewhere == []


async def test_the_model_can_be_named(fake):
    await fake.command("U20", "C20", "/imagine", "a fox --model squares")
    await drawn(fake, "C20")
    await fake.command("U20", "C20", "/imagine", "a fox --model circles")
    await fake.wait(lambda: "model circles does not run here" in fake.whispers("U20")[-1].body, "why not")


async def test_no_prompt_is_logged(slack):
    log = slack[1].read_log()
    assert "red fox" not in log
    assert "Traceback" not in log, log[-3_000:]
