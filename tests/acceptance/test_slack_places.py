"""Where the Slack front-end answers and whom it belongs to: workspaces, places it may not write in, attached files."""

from __future__ import annotations

import json

import pytest
import pytest_asyncio
import redis

from tests.bot_process import running
from tests.fake_workspace.server import FakeWorkspace
from tests.slack_answers import answers, asked, exactly, quiet, right
from tests.valkey import ValkeyProcess
from tests.worker_processes import config, worker
from workers import keys

pytestmark = [pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def queue():
    server = ValkeyProcess(persist=False).start()
    with worker(config(server.url, model="words")):
        yield server
    server.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fake(queue):
    tiers = json.dumps({"trainees": {"day_gpu_s": 60}, "staff": {"day_gpu_s": 600}})
    places = {"teams": ("T2",), "organizations": {"E9": ("T91", "T92")}}
    async with running(queue.url, **places, PALAVER_TIERS=tiers) as (fake, bot):
        yield fake
        assert "Traceback" not in bot.read_log(), bot.read_log()[-3_000:]


# Workspaces


async def test_each_workspace_is_answered_with_its_own_token_and_is_its_own_tenant(fake, queue):
    for team, channel in (("T1", "C1"), ("T2", "C2")):
        ts = await fake.say("U1", channel, "{bot} " + asked(4), team=team)
        await exactly(fake, channel, ts, right(asked(4)))
        begun = [call for call in fake.calls if call.args.get("channel") == channel]
        assert {call.token for call in begun} == {fake.teams[team].bot_token}
    with redis.Redis.from_url(queue.url) as client:
        names = {key.decode().split(":")[2] for key in client.scan_iter(keys.conversation("*", "*"))}
    assert {"slack-T1", "slack-T2"} <= names


async def test_an_organization_wide_installation_is_one_token_and_a_tenant_for_each_workspace(fake, queue):
    for team, channel in (("T91", "C91"), ("T92", "C92")):
        ts = await fake.say("U1", channel, "{bot} " + asked(4), team=team)
        await exactly(fake, channel, ts, right(asked(4)))
    with redis.Redis.from_url(queue.url) as client:
        names = {key.decode().split(":")[2] for key in client.scan_iter(keys.conversation("*", "*"))}
    assert {"slack-E9-T91", "slack-E9-T92"} <= names


async def test_an_unknown_workspace_is_left_alone(fake):
    event = {"type": "message", "channel": "D3", "channel_type": "im", "user": "U3", "text": "hello", "ts": fake.ts()}
    stranger = {**fake.envelope(event), "team_id": "T404", "authorizations": []}
    await fake.delivery.event(stranger, retry=False)
    await quiet(fake)
    assert not [call for call in fake.calls if call.args.get("channel") == "D3"]


# Places where the bot may not write


async def test_a_command_where_the_bot_is_not_is_answered_privately(fake):
    fake.faults.errors["chat.postMessage"] = ["not_in_channel"]
    question = asked(5)
    await fake.command("U4", "C4", "/chat", question)
    told = await fake.wait(lambda: [each for each in fake.whispers("U4") if right(question) in each.body], "an answer")
    assert "Invite me there" in told[0].body
    assert fake.thread("C4", None) == []


@pytest.mark.parametrize("how", ["expired", "used up"])
async def test_when_the_private_way_has_run_out_a_direct_message_comes(fake, how):
    user, channel = ("U5", "C5") if how == "expired" else ("U6", "C6")
    fake.faults.errors["chat.postMessage"] = ["not_in_channel"]
    if how == "expired":
        fake.rules.response_url_life_s = -1.0
    else:
        fake.rules.response_url_uses = 0
    question = asked(5)
    await fake.command(user, channel, "/chat", question)
    (message,) = await answers(fake, "D" + user[1:], None)
    fake.rules.response_url_life_s, fake.rules.response_url_uses = 1_800.0, 5
    assert right(question) in message.body
    assert fake.thread(channel, None) == []


async def test_a_limit_is_told_privately_with_a_time(fake):
    for number in range(12):
        await fake.command("U7", "C7", "/chat", asked(2 + number))
    told = [each.body for each in fake.whispers("U7") if "limit is used up" in each.body]
    assert told
    assert "Try again in" in told[0]


# Files


def with_file(fake: FakeWorkspace, name: str, data: bytes, mimetype: str, url: str | None = None) -> list[dict]:
    return [fake.share(name, data, mimetype, url)]


async def prompt_of(queue: ValkeyProcess, channel: str, ts: str) -> str:
    with redis.Redis.from_url(queue.url) as client:
        kept = client.hgetall(keys.conversation("slack-T1", f"{channel}-{ts.replace('.', '-')}"))
    return kept.get(b"q:1", b"").decode()


async def test_a_text_file_is_read_with_the_token(fake, queue):
    files = with_file(fake, "notes.txt", b"The secret ingredient is thyme.", "text/plain")
    ts = await fake.say("U8", "D8", "Summarise", files=files)
    await answers(fake, "D8", ts)
    prompt = await prompt_of(queue, "D8", ts)
    assert prompt.startswith("Summarise")
    assert "File notes.txt:\n```\nThe secret ingredient is thyme.\n```" in prompt


@pytest.mark.parametrize(
    ("name", "data", "mimetype", "why"),
    [
        ("cat.mp4", b"\0\1", "video/mp4", "only text files"),
        ("big.txt", b"x" * 300_000, "text/plain", "larger than"),
        ("odd.txt", b"a\0b", "text/plain", "could not be fetched as text"),
    ],
)
async def test_other_files_are_not_read_and_that_is_said(fake, queue, name, data, mimetype, why):
    channel = "D90" + name[:1].upper()
    ts = await fake.say("U9", channel, "Summarise", files=with_file(fake, name, data, mimetype))
    await answers(fake, channel, ts)
    await fake.wait(lambda: any(why in each.body for each in fake.thread(channel, ts)), "the reason")
    assert await prompt_of(queue, channel, ts) == "Summarise"


@pytest.mark.parametrize("how", ["elsewhere", "redirect", "user", "lookalike"])
async def test_the_token_goes_to_no_other_address(fake, queue, how):
    base, channel = fake.web_api.base_url, f"D10{how[0].upper()}"
    name = f"redirect:{fake.foreign_url}/x" if how == "redirect" else "a.txt"
    host = base.removeprefix("http://")
    url = {
        "elsewhere": f"{fake.foreign_url}/a.txt",
        "redirect": None,
        "user": f"http://x:y@{host}/foreign/a.txt",
        "lookalike": f"{base}.example.org/foreign/a.txt",
    }[how]
    ts = await fake.say("U10", channel, "Read this", files=with_file(fake, name, b"hello", "text/plain", url))
    await answers(fake, channel, ts)
    assert fake.tokens_elsewhere == []
    assert await prompt_of(queue, channel, ts) == "Read this"


async def test_a_login_page_is_not_taken_for_the_file(fake, queue):
    files = with_file(fake, "page.txt", b"hello", "text/plain")
    fake.uploads[files[0]["id"]].data = None
    ts = await fake.say("U11", "D11", json.dumps({"tokens": 3}), files=files)
    await answers(fake, "D11", ts)
    assert "hello" not in await prompt_of(queue, "D11", ts)


# What is one's own


async def test_usage_is_counted_and_told_privately(fake):
    ts = await fake.say("U12", "D12", asked(9))
    await exactly(fake, "D12", ts, right(asked(9)))

    async def told() -> str:
        await fake.command("U12", "C12", "/usage")
        return fake.whispers("U12")[-1].body

    await fake.wait(lambda: fake.sessions[("D12", ts)]["seen"][-1:] == ["active"], "the end")
    assert "1 answers (9 tokens)" in await told()


async def test_forget_deletes_what_one_has_said_in_a_channel(fake, queue):
    ts = await fake.say("U13", "C13", "{bot} " + asked(3))
    await exactly(fake, "C13", ts, right(asked(3)))
    await fake.say("U14", "C13", asked(4), ts)
    await answers(fake, "C13", ts, 2)
    await fake.command("U13", "C13", "/forget")
    assert "1 of your questions" in fake.whispers("U13")[-1].body
    with redis.Redis.from_url(queue.url) as client:
        kept = client.hgetall(keys.conversation("slack-T1", f"C13-{ts.replace('.', '-')}"))
    assert [kept[name].decode() for name in sorted(kept) if name.startswith(b"q:")] == [asked(4)]


async def test_privacy_tells_exports_and_deletes(fake):
    ts = await fake.say("U15", "D15", asked(3, note="unmistakable"))
    await answers(fake, "D15", ts)
    await fake.command("U15", "C15", "/privacy")
    notice = fake.whispers("U15")[-1]
    assert "forgotten 30 days after" in notice.body
    await fake.press("U15", notice, "Export")
    exported = await fake.wait(lambda: [w for w in fake.whispers("U15") if "unmistakable" in w.body], "the export")
    assert exported
    await fake.press("U15", notice, "Delete")
    await fake.wait(lambda: [w for w in fake.whispers("U15") if "1 of your questions" in w.body], "the deletion")
    await fake.press("U15", notice, "Export")
    await fake.wait(lambda: '"conversations": []' in fake.whispers("U15")[-1].body, "an empty export")


async def test_the_home_shows_usage_and_lets_admins_configure_the_workspace(fake, queue):
    await fake.open_home("U16")
    home = await fake.wait(lambda: fake.homes.get("U16"), "a home")
    assert "Today" in json.dumps(home)
    asking = await fake.say("U16", "D16", asked(2, note="recently"))
    await exactly(fake, "D16", asking, right(asked(2, note="recently")))
    await fake.open_home("U16")
    await fake.wait(lambda: "recently" in json.dumps(fake.homes["U16"]), "the latest question in the home")
    assert "palaver_configure" not in json.dumps(home)
    fake.admins.add("U17")
    await fake.open_home("U17")
    home = await fake.wait(lambda: fake.homes.get("U17"), "an admin's home")
    await fake.press_in_view("U17", home, "palaver_configure")
    view = await fake.wait(lambda: [v for v in fake.views.values() if v.get("callback_id") == "palaver_config"], "it")
    (menu,) = [block for block in view[0]["blocks"] if block["block_id"] == "model"]
    assert [each["value"] for each in menu["element"]["options"]] == ["operator", "words"]
    model = {"type": "static_select", "selected_option": {"value": "words"}}
    no_pictures = {"type": "radio_buttons", "selected_option": {"value": "no"}}
    await fake.submit("U17", view[0], {"persona": "You are a pirate.", "images": no_pictures, "model": model})
    await fake.command("U16", "C16", "/imagine", "a fox")
    assert "switched off here" in fake.whispers("U16")[-1].body
    ts = await fake.say("U16", "D16", asked(3))
    await answers(fake, "D16", ts)
    with redis.Redis.from_url(queue.url) as client:
        kept, other = (client.get(keys.tenant_config(tenant)) for tenant in ("slack-T1", "slack-T2"))
    assert (json.loads(kept)["persona"], json.loads(kept)["model"]) == ("You are a pirate.", "words")
    assert other is None, "another workspace decides for itself"
    wrong = await fake.submit("U17", view[0], {"max_answer_tokens": "many", "user_day_gpu_s": "none"})
    assert "number of tokens" in wrong.payload["errors"]["max_answer_tokens"]
    assert "GPU-seconds above 0" in wrong.payload["errors"]["user_day_gpu_s"]
    people = {"tier_trainees": ["U000000016", "U000000018"], "tier_staff": ["U000000018"]}
    chosen = {name: {"type": "multi_users_select", "selected_users": users} for name, users in people.items()}
    assert (await fake.submit("U17", view[0], {"user_month_gpu_s": "50", **chosen})).payload is None
    with redis.Redis.from_url(queue.url) as client:
        kept = json.loads(client.get(keys.tenant_config("slack-T1")))
    assert (kept["user_month_gpu_s"], kept["tiers"]) == (50, {"U000000016": "trainees", "U000000018": "staff"})
    before = set(fake.views)
    await fake.press_in_view("U17", home, "palaver_configure")
    again = await fake.wait(lambda: [fake.views[name] for name in set(fake.views) - before], "the window again")
    shown = {block["block_id"]: block["element"] for block in again[0]["blocks"]}
    assert shown["tier_staff"]["initial_users"] == ["U000000018"]
    assert shown["user_month_gpu_s"]["initial_value"] == "50"
    denied = await fake.submit("U16", view[0], {"persona": "mine", "images": no_pictures})
    assert "Only an admin" in denied.payload["errors"]["persona"]
