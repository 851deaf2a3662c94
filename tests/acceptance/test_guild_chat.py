"""Chat in a guild, as its people see it: the real bot process, Valkey and worker, and Discord at protocol level."""

from __future__ import annotations

import asyncio
import json

import pytest
import pytest_asyncio
import redis
from rq.serializers import JSONSerializer

from bots.delivery import wording
from bots.tenant_config import TenantConfig
from tests.engines import answer
from tests.fake_guild.bot import place, running
from tests.fake_guild.rules import Rules
from tests.fake_guild.server import FakeGuild, until
from tests.fake_guild.world import ALICE, APPLICATION, BOB, GUILD, MODERATOR, OWNER, ROLE, Message
from tests.valkey import ValkeyProcess
from tests.worker_processes import config, worker
from workers import keys
from workers.outbox import OutboxJob

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

CODE = "def f(x):\n    return x + 1  # the next one\n" * 10
#: A few: many links are what moderation takes for an advertisement.
LINK = "[a link](https://example.org/birds)"
#: Long, with code blocks, lists, links and characters of several code units.
END = "No more of birds."
LONG = "\n\n".join(
    f"Paragraph {number} about birds 🦜🏳️‍🌈 and {LINK if number % 12 == 5 else 'no link'}.\n\n"
    f"- item one of {number}\n- item two\n\n```python\n{CODE}```"
    for number in range(21)
)
LONG += f"\n\n{END}"


@pytest.fixture(scope="module")
def valkey():
    process = ValkeyProcess(persist=False).start()
    large = config(process.url, "large", step_s=0.01, model="org/large").model_copy(update={"model": "org/large"})
    with worker(config(process.url, step_s=0.01, model="words")), worker(large):
        yield process
    process.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _guild(valkey):
    async with running(valkey.url) as (fake, _):
        yield fake


@pytest_asyncio.fixture(loop_scope="module")
async def guild(_guild):
    yield _guild
    vars(_guild.rules).update(vars(Rules()))
    _guild.world.pings.clear()


def orders(**what: object) -> str:
    return json.dumps(what, ensure_ascii=False)


def complete(*messages: Message) -> bool:
    return bool(messages) and not any(message.loading or "Stop" in message.buttons for message in messages)


async def answered(guild: FakeGuild, prompt: Message, count: int = 1) -> list[Message]:
    """The bot's messages after a prompt, once they are complete."""

    def done() -> list[Message]:
        found = guild.answers(prompt)
        waits = any("before this one" in each.content or each.content == wording.BEGINNING for each in found)
        return found if len(found) >= count and complete(*found) and not waits else []

    return await until(done, "an answer")


async def test_a_mention_is_answered_and_grows(guild):
    text = orders(tokens=100, step_s=0.05)
    prompt = await guild.mention(text, channel=place(guild))
    (message,) = await answered(guild, prompt)
    assert message.content == answer(text, 100).strip()
    assert message.reference == prompt.id, "it replies"
    assert 3 <= len(message.history) <= 10, "it grew, in few edits"
    assert prompt.channel in guild.world.typed


async def test_what_is_not_meant_for_the_bot_is_left_alone(guild):
    prompt = await guild.say("just talking", channel=place(guild))
    await asyncio.sleep(1)
    assert guild.answers(prompt) == []


async def test_a_reply_a_direct_message_and_a_thread_of_the_bot_are_answered(guild):
    channel = place(guild)
    first = await guild.mention(orders(tokens=3), channel=channel)
    (said,) = await answered(guild, first)
    reply = await guild.say(f"<@{APPLICATION}> " + orders(tokens=4), channel=channel, reply_to=said.id)
    await answered(guild, reply)
    direct = await guild.say(orders(tokens=5), channel=guild.direct(ALICE))
    (told,) = await answered(guild, direct)
    assert told.content == answer(orders(tokens=5), 5).strip()


async def test_a_command_is_answered_in_its_own_message(guild):
    command = await guild.command("chat", prompt=orders(tokens=40, step_s=0.03), channel=place(guild))
    message = await until(lambda: guild.response(command), "the acknowledgement")
    await until(lambda: complete(message), "the answer")
    assert message.content == answer(orders(tokens=40, step_s=0.03), 40).strip()
    assert command.acknowledged_s, "in time: a late acknowledgement is refused"
    private = await guild.command("chat", prompt=orders(tokens=3), private=True, channel=place(guild))
    message = await until(lambda: guild.response(private), "the acknowledgement")
    await until(lambda: complete(message), "the answer")
    assert message.visible_to == ALICE


async def test_ten_thousand_characters_are_complete_and_no_block_is_broken(guild):
    assert len(LONG) > 10_000
    prompt = await guild.mention(orders(say=LONG), channel=place(guild))

    def whole() -> list[Message]:
        found = guild.answers(prompt)
        return found if complete(*found) and found[-1].content.endswith(END) and len(found) > 5 else []

    await until(whole, "the whole answer", 120)
    await asyncio.sleep(1)
    messages = guild.answers(prompt)
    assert all(message.content.count("```") % 2 == 0 for message in messages), "code blocks are closed and opened again"
    assert bare("".join(message.content for message in messages)) == bare(LONG)


def bare(text: str) -> str:
    """A text without its fences and white space, which splitting may change."""
    return "".join(text.split()).replace("```python", "").replace("```", "")


async def test_no_text_pings_anyone(guild):
    bad = f"@everyone @here <@{OWNER}> <@&{ROLE}> " * 3
    channel = place(guild)
    prompt = await guild.mention(orders(say=bad), channel=channel)
    (message,) = await answered(guild, prompt)
    assert "@everyone" in message.content
    command = await guild.command("chat", prompt=orders(say=bad * 12), channel=channel)
    response = await until(lambda: guild.response(command), "the acknowledgement")
    await until(lambda: complete(response), "the answer")
    await guild.mention("x" * 7_000 + "@everyone", channel=channel)  # its refusal or answer quotes nothing either
    await asyncio.sleep(2)
    assert guild.world.pings == []


async def test_the_same_event_twice_is_one_answer(guild):
    prompt = await guild.mention(orders(tokens=20, step_s=0.02), channel=place(guild))
    for _ in range(3):
        await guild.gateway.repeat_last("MESSAGE_CREATE")
    await answered(guild, prompt)
    await guild.gateway.repeat_last("MESSAGE_CREATE")
    command = await guild.command("chat", prompt=orders(tokens=20), channel=prompt.channel)
    await guild.gateway.repeat_last("INTERACTION_CREATE")
    response = await until(lambda: guild.response(command), "the acknowledgement")
    await until(lambda: complete(response), "the answer")
    await asyncio.sleep(1)
    assert len(guild.answers(prompt)) == 2, "one for the message, one for the command"


async def test_stop_takes_effect_and_is_the_askers_own(guild):
    prompt = await guild.mention(orders(tokens=5_000, step_s=0.02), channel=place(guild))
    message = await until(lambda: [m for m in guild.answers(prompt) if len(m.history) > 2], "text")
    (message,) = message
    stranger = await guild.press(message, message.buttons["Stop"], BOB)
    await until(lambda: guild.whispers(stranger), "a refusal")
    assert "Only the person" in guild.whispers(stranger)[0]
    await guild.press(message, message.buttons["Stop"], ALICE)
    await until(lambda: complete(message), "the stop")
    assert message.content.endswith(wording.STOPPED)
    assert answer(orders(tokens=5_000, step_s=0.02), 5_000).startswith(
        message.content.removesuffix(wording.STOPPED).strip()
    ), "what was written stays"


async def test_a_moderator_stops_others_answers(guild):
    prompt = await guild.mention(orders(tokens=5_000, step_s=0.02), channel=place(guild))
    (message,) = await until(lambda: [m for m in guild.answers(prompt) if len(m.history) > 1], "text")
    await guild.press(message, message.buttons["Stop"], MODERATOR)
    await until(lambda: complete(message), "the stop")


async def test_a_press_on_something_unknown_gets_a_clear_word(guild):
    prompt = await guild.mention(orders(tokens=3), channel=place(guild))
    (message,) = await answered(guild, prompt)
    for custom_id in ("p:burn:t__1", "p:stop:t__gone", "p:vary:t__gone:0", "p:prompt:t__gone", "p:edit:t__gone"):
        press = await guild.press(message, custom_id)
        await until(lambda press=press: guild.whispers(press), f"a word about {custom_id}")


async def test_history_is_kept_for_the_channel_and_forgotten_on_demand(guild):
    channel = place(guild)
    for tokens in (3, 4):
        await answered(guild, await guild.mention(orders(tokens=tokens), channel=channel))
    command = await guild.command("forget", channel=channel)
    await until(lambda: guild.whispers(command), "a confirmation")
    assert "2 messages" in guild.whispers(command)[0]
    again = await guild.command("forget", user=MODERATOR, channel=channel)
    await until(lambda: guild.whispers(again), "a confirmation")


async def test_failures_are_said_clearly(guild):
    prompt = await guild.mention(orders(tokens=3, refuse="invalid_request"), channel=place(guild))
    (message,) = await answered(guild, prompt)
    assert message.content == "It did not work."


async def test_a_prompt_that_is_far_too_long_is_refused_privately(guild):
    command = await guild.command("chat", prompt="hello", files={"file=big.txt": b"x" * 30_000}, channel=place(guild))
    await until(lambda: guild.whispers(command), "a refusal")
    assert "20000 characters" in guild.whispers(command)[0]
    assert guild.response(command) is None, "nothing stays in the channel"


async def test_text_files_are_read_and_others_refused(guild):
    channel = place(guild)
    prompt = await guild.mention("read", files={"notes.txt": b"some text"}, channel=channel)
    (message,) = await answered(guild, prompt)
    assert message.content.startswith(answer("read\n\nnotes.txt:\nsome text", 5).strip())
    binary = await guild.mention("read", files={"movie.bin": b"\0\1"}, channel=channel)
    (message,) = await answered(guild, binary)
    assert "no text file" in message.content
    foreign = await guild.mention(
        "read",
        files={"a.txt": b"secret"},
        file_url=guild.cdn_url.replace("127.0.0.1", "localhost") + "/a",
        channel=channel,
    )
    (message,) = await answered(guild, foreign)
    assert "only fetched from Discord" in message.content


async def test_a_deleted_message_stops_its_job_and_nothing_is_posted(guild, valkey):
    prompt = await guild.mention(orders(tokens=5_000, step_s=0.02), channel=place(guild))
    (message,) = await until(lambda: [m for m in guild.answers(prompt) if len(m.history) > 1], "text")
    before = valkey_value(valkey, "palaver:promises")
    assert before > 0
    await guild.delete(message)
    await until(lambda: valkey_value(valkey, "palaver:promises") == 0, "the end of the delivery")
    assert guild.answers(prompt) == []


def valkey_value(valkey: ValkeyProcess, prefix: str) -> int:
    import redis

    with redis.Redis.from_url(valkey.url) as client:
        return sum(client.zcard(key) for key in client.scan_iter(prefix + ":*"))


async def test_missing_permission_and_a_deleted_channel_end_well(guild, valkey):
    for change in ("writable", "deleted"):
        channel = place(guild)
        prompt = await guild.mention(orders(tokens=400, step_s=0.02), channel=channel)
        await until(lambda prompt=prompt: [m for m in guild.answers(prompt) if len(m.history) > 1], "text")
        setattr(guild.world.channels[channel], change, change == "deleted")
        await until(lambda: valkey_value(valkey, "palaver:promises") == 0, "the end of the delivery")
    silent = place(guild)
    guild.world.channels[silent].writable = False
    prompt = await guild.mention(orders(tokens=10), channel=silent)
    await asyncio.sleep(2)
    assert guild.answers(prompt) == []


async def test_where_the_history_may_not_be_read_the_answer_is_no_reply(guild):
    channel = place(guild)
    guild.world.channels[channel].readable = False
    (message,) = await answered(guild, await guild.mention(orders(tokens=3), channel=channel))
    assert message.reference is None


async def test_an_expired_token_moves_the_answer_into_the_channel(guild):
    guild.rules.token_life_s = 4.0
    channel = place(guild)
    text = orders(tokens=150, step_s=0.05)
    command = await guild.command("chat", prompt=text, channel=channel)
    first = await until(lambda: guild.response(command), "the acknowledgement")

    def moved() -> list[Message]:
        found = [each for each in guild.answers(channel=channel) if each.id != first.id]
        return found if complete(*found) else []

    (message,) = await until(moved, "a message of the bot")
    assert message.content == answer(text, 150).strip()
    assert message.reference == first.id, "it replies to where the answer was promised"


async def test_an_expired_private_answer_goes_to_the_user_alone(guild):
    guild.rules.token_life_s = 3.0
    channel = place(guild)
    text = orders(tokens=100, step_s=0.05)
    await guild.command("chat", prompt=text, private=True, channel=channel, user=BOB)
    direct = guild.direct(BOB)
    (message,) = await until(
        lambda: [m for m in guild.answers(channel=direct) if complete(m) and m.content == answer(text, 100).strip()],
        "a direct message",
    )
    assert message.channel == direct


async def test_an_answer_that_needs_more_follow_ups_than_there_are_goes_on_directly(guild):
    guild.rules.per_window, guild.world.installed = 50, False
    text, channel = orders(tokens=1_900), place(guild)
    try:
        await guild.command("chat", prompt=text, channel=channel, user=OWNER)
        direct = guild.direct(OWNER)

        def whole() -> bool:
            parts = guild.answers(channel=direct)
            return complete(*parts) and " ".join(each.content for each in parts) == answer(text, 1_900).strip()

        await until(whole, "the answer in direct messages", 90)
        assert len(guild.answers(channel=channel)) == 6, "the response and five follow-ups"
    finally:
        guild.world.installed = True


async def test_a_storm_of_errors_delays_but_loses_nothing(guild):
    prompt = await guild.mention(orders(tokens=60, step_s=0.05), channel=place(guild))
    await until(lambda: guild.answers(prompt), "the first message")
    guild.rules.faults = [502, 503, 500, 502]
    (message,) = await answered(guild, prompt)
    assert message.content == answer(orders(tokens=60, step_s=0.05), 60).strip()


async def test_rate_limits_delay_but_lose_nothing(guild):
    guild.rules.per_window, guild.rules.window_s = 2, 3.0
    channel = place(guild)
    texts = [orders(tokens=80, step_s=0.05, number=number) for number in range(6)]
    prompts = [await guild.mention(text, channel=channel) for text in texts]

    def all_complete() -> bool:
        found = {message.reference: message for message in guild.answers(prompts[0])}
        return all(
            prompt.id in found and found[prompt.id].content == answer(text, 80).strip()
            for prompt, text in zip(prompts, texts, strict=True)
        )

    await until(all_complete, "all final texts", 120)
    edits = sum(len(message.history) for message in guild.answers(prompts[0]))
    assert edits < 100, "stale edits are dropped"
    assert guild.limits.refused < 20, "the bot keeps within the limits that it is told"


async def test_twenty_users_at_once_are_acknowledged_in_time(guild):
    guild.rules.per_window = 100
    users = [OWNER + 100 + number for number in range(20)]
    channel, commands = place(guild), []
    for round_ in range(5):  # later ones meet the answers to earlier ones
        texts = [(user, orders(tokens=30, step_s=0.01, user=user - OWNER, round=round_)) for user in users]
        asked = [guild.command("chat", user=user, channel=channel, prompt=text) for user, text in texts]
        commands += zip(await asyncio.gather(*asked), (text for _, text in texts), strict=True)
        await asyncio.sleep(0.3)

    def right() -> bool:
        shown = [(guild.response(command), text) for command, text in commands]
        return all(message and message.content == answer(text, 30).strip() for message, text in shown)

    await until(right, "100 answers", 120)
    waits_ms = sorted((command.acknowledged_s - command.created_s) * 1000 for command, _ in commands)
    # The stand-in has refused whatever came after 3 s; on a machine that does nothing else the slowest takes a tenth
    # of a second: ``python -m benchmarks.acknowledgements``.
    assert waits_ms[-1] < 3_000
    assert waits_ms[len(waits_ms) // 2] < 1_000, waits_ms


async def test_a_reconnect_is_resumed_and_an_invalid_session_begun_anew(guild):
    channel = place(guild)
    resumed, identified = guild.gateway.resumed, guild.gateway.identified
    await guild.gateway.op(7)
    await until(lambda: guild.gateway.resumed > resumed, "a resume")
    await answered(guild, await guild.mention(orders(tokens=3), channel=channel))
    await guild.gateway.drop()
    await until(lambda: not guild.gateway.connected, "the drop")
    missed = await guild.mention(orders(tokens=4), channel=channel)
    await answered(guild, missed)
    await guild.gateway.op(9, False)
    await until(lambda: guild.gateway.identified > identified and guild.gateway.connected, "a new session", 90)
    await asyncio.sleep(1)
    await answered(guild, await guild.mention(orders(tokens=5), channel=channel))


async def test_help_is_private(guild):
    command = await guild.command("help", channel=place(guild))
    await until(lambda: guild.whispers(command), "help")
    assert "I am a machine" in guild.whispers(command)[0]


async def configured(guild: FakeGuild, command: str, channel: int, user: int = MODERATOR, **options: str) -> str:
    used = await guild.command(command, user=user, channel=channel, **options)
    await until(lambda: guild.whispers(used), "a confirmation")
    return guild.whispers(used)[0]


async def refused(guild: FakeGuild, name: str, **options: object) -> str:
    command = await guild.command(name, **options)
    await until(lambda: guild.whispers(command), "a refusal")
    assert guild.response(command) is None, "nothing stays in the channel"
    return guild.whispers(command)[0]


async def said(guild: FakeGuild, **options: object) -> str:
    command = await guild.command("chat", **options)
    response = await until(lambda: guild.response(command), "the acknowledgement")
    await until(lambda: complete(response), "the answer")
    return response.content


async def test_what_a_configuration_does_not_take_is_said_clearly(guild):
    channel = place(guild)
    for setting, value, why in (
        ("user_per_minute", "5000", "up to 20"),
        ("max_answer_tokens", "a lot", "16 to 1024"),
        ("model", "gpt-9", "does not run here"),
        ("images", "maybe", "on or off"),
        ("moderation", "relaxed", "nothing laxer"),
        ("channels", "general", "by mentioning"),
        ("languages", "<@1>", "by their names"),
    ):
        assert why in await configured(guild, "config set", channel, setting=setting, value=value)
    assert "Only those who may manage" in await configured(
        guild, "config set", channel, ALICE, setting="images", value="off"
    )


async def test_a_configuration_holds_at_once(guild):
    channel = place(guild)

    async def change(setting: str, value: str) -> str:
        return await configured(guild, "config set", channel, setting=setting, value=value)

    try:
        assert "images**: off" in await change("images", "off")
        assert "switched off" in await refused(guild, "imagine", prompt="a fox", channel=channel)
        await change("max_answer_tokens", "16")
        assert await said(guild, prompt="just words", channel=channel) == answer("just words", 16).strip()
        await change("channels", f"<#{channel}>")
        assert "not set up" in await refused(guild, "chat", prompt="hello", channel=place(guild))
        await change("roles", f"<@&{ROLE}>")
        assert "certain roles" in await refused(guild, "chat", prompt="hello", channel=channel)
        guild.world.roles[BOB] = [ROLE]
        assert await said(guild, prompt="hello", channel=channel, user=BOB)
        assert "max_answer_tokens**: 16" in await configured(guild, "config show", channel)
    finally:
        for setting in ("images", "max_answer_tokens", "channels", "roles"):
            await configured(guild, "config reset", channel, setting=setting)


async def test_a_guild_chooses_among_the_models_that_run(guild, valkey):
    channel = place(guild)
    typed = await guild.autocomplete("config set", "value", "", user=MODERATOR, setting="model")
    await until(lambda: typed.choices, "suggestions")
    assert [each["value"] for each in typed.choices] == ["words", "org/large"]
    try:
        for model in ("org/large", "words"):
            await configured(guild, "config set", channel, setting="model", value=model)
            command = await guild.command("chat", prompt="hello", channel=channel)
            response = await until(lambda asked=command: guild.response(asked), "the acknowledgement")
            await until(lambda shown=response: complete(shown), "the answer")
            with redis.Redis.from_url(valkey.url) as client:
                job_id = f"discord-{GUILD}__i{command.id}"
                job = OutboxJob.fetch(job_id, connection=client, serializer=JSONSerializer)
            assert str(job.worker_name).startswith("large") is (model == "org/large")
        with redis.Redis.from_url(valkey.url) as client:  # as when the operator stops running it
            client.set(keys.tenant_config(f"discord-{GUILD}"), TenantConfig(model="gone").model_dump_json())
        assert "The model gone does not run here" in await refused(guild, "chat", prompt="hello", channel=channel)
    finally:
        await configured(guild, "config reset", channel, setting="model")


async def test_what_a_guild_finds_too_much_is_refused_privately_and_costs_nothing(guild):
    channel = place(guild)
    links = "Read https://a.example.org https://b.example.org https://c.example.org https://d.example.org"
    assert await said(guild, prompt=links, channel=channel)
    await configured(guild, "config set", channel, setting="moderation", value="strict")
    try:
        assert await refused(guild, "chat", prompt=links, channel=channel)
        assert await said(guild, prompt="Good morning.", channel=channel)
    finally:
        await configured(guild, "config reset", channel, setting="moderation")


async def test_a_guild_may_have_its_own_rate(guild):
    channel, user = place(guild), OWNER + 77
    await configured(guild, "config set", channel, setting="user_per_minute", value="2")
    try:
        await said(guild, prompt=orders(tokens=2), user=user, channel=channel)
        assert "Try again in" in await refused(guild, "chat", prompt="again", user=user, channel=channel)
    finally:
        await configured(guild, "config reset", channel, setting="user_per_minute")


async def test_a_mention_opens_a_thread_where_the_guild_wants_that(guild):
    channel = place(guild)
    await configured(guild, "config set", channel, setting="threads", value="on")
    try:
        prompt = await guild.mention(orders(tokens=4), channel=channel)
        thread = await until(lambda: guild.world.channels.get(prompt.id), "a thread")
        wanted = answer(orders(tokens=4), 4).strip()
        await until(lambda: [each for each in guild.answers(channel=thread.id) if each.content == wanted], "an answer")
        assert guild.answers(prompt) == [], "nothing in the channel itself"
    finally:
        await configured(guild, "config reset", channel, setting="threads")


async def test_what_is_kept_of_a_person_is_exported_and_deleted(guild):
    channel, user = place(guild), OWNER + 88
    secret = orders(tokens=3, note="quixotic")
    await answered(guild, await guild.mention(secret, channel=channel, user=user))
    assert "1 answers" in await configured(guild, "usage", channel, user)

    async def export() -> dict:
        command = await guild.command("privacy export", user=user, channel=channel)

        def file() -> Message | None:
            message = guild.world.messages.get(command.message or 0)
            return message if message and message.files else None

        message = await until(file, "a file")
        assert message.visible_to == user
        return json.loads(message.files[0])

    assert (await export())["conversations"][0]["turns"][0]["question"] == secret
    assert "1 messages" in await configured(guild, "privacy delete", channel, user)
    assert (await export())["conversations"] == []
