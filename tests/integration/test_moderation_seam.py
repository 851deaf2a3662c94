from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from redis.asyncio import Redis

from bots.image_prompt import ImagePrompt
from bots.moderation import LateRecord, rules_for
from bots.service import Prompt, Refusal
from bots.settings import Settings
from bots.tenant_config import TenantConfig, TenantConfigs
from bots.tenant_rules import TenantRules, Whence
from generation.moderation.decided import Decided
from generation.moderation.policy import Policy, WordList, default_policy
from generation.moderation.record import Record
from generation.moderation.types import Action, Category
from workers import engine_process, worker_loop
from workers.contract import ReplyTo, Request, decode_request, encode

POLICY = Policy(lists=(WordList(words=("forbidden",)),)).at()


def prompt(text: str, policy: object = None) -> Prompt:
    return Prompt("terminal", "guild", "c", "u", "talk", "k1", text, ReplyTo(front_end="t"), policy=policy)  # type: ignore[arg-type]


def test_a_refusal_names_the_category_and_is_recorded() -> None:
    told: list[Decided] = []
    said = rules_for(POLICY, told.extend)(prompt("a f.o.r.b.i.d.d.e.n thing"))
    assert isinstance(said, Refusal)
    assert said.rule == "blocked_words"
    assert "appeal" in said.message
    assert [(decided.origin.job_id, decided.origin.user) for decided in told] == [("guild__k1", "u")]


def test_what_the_policy_hides_is_masked_before_it_is_stored() -> None:
    said = rules_for(default_policy())(prompt("my card is 4111 1111 1111 1111"))
    assert isinstance(said, Prompt)
    assert said.text == "my card is [card number]"


def test_an_innocent_prompt_is_let_be_and_costs_no_record() -> None:
    told: list[Decided] = []
    assert rules_for(POLICY, told.extend)(prompt("hello there")) is None
    assert told == []


def test_the_policy_of_the_prompts_tenant_wins() -> None:
    assert isinstance(rules_for(default_policy())(prompt("forbidden", POLICY)), Refusal)
    assert rules_for(POLICY)(prompt("forbidden", default_policy())) is None


def test_image_prompts_are_judged_with_what_they_exclude() -> None:
    image = ImagePrompt("t", "guild", "c", "u", "k", "a tree", ReplyTo(front_end="t"), negative_text="forbidden")
    assert isinstance(rules_for(POLICY)(image), Refusal)


def test_front_ends_load_no_model_library_and_no_database_for_it() -> None:
    code = (
        "import sys; import bots.terminal.session; "
        "assert not {'torch', 'transformers', 'sqlalchemy', 'pypinyin'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_a_tenants_configuration_decides_its_policy_by_channel_and_role(async_redis: Redis) -> None:
    configs = TenantConfigs(async_redis)
    rules = TenantRules(async_redis, configs, Settings())
    asked = prompt("hello")
    plain = await rules.apply(asked, Whence())
    assert plain.policy == default_policy()
    marked = await rules.apply(asked, Whence(nsfw=True))
    assert marked.policy is not None
    assert marked.policy.settings[Category.SEXUAL][1] is Action.BLUR
    await configs.change("guild", "moderation", "strict", await rules.ceilings())
    strict = await rules.apply(asked, Whence())
    assert strict.policy == default_policy("strict")
    own = Policy(lists=(WordList(words=("forbidden",)),), exempt={"7": ("blocked_words",)})
    await configs.set("guild", TenantConfig(policy=own))
    assert isinstance(rules_for(default_policy())(await rules.apply(prompt("forbidden"), Whence())), Refusal)
    exempt = await rules.apply(prompt("forbidden"), Whence(roles=["7"]))
    assert not isinstance(rules_for(default_policy())(exempt), Refusal)


async def test_the_policy_travels_with_the_request() -> None:
    sent = Request(
        platform="t", tenant="guild", channel="c", user="u", idempotency_key="k", reply=ReplyTo(front_end="t"),
        body={"messages": [{"role": "user", "content": "hi"}]}, created_at_s=0, policy=POLICY,
    )  # type: ignore[arg-type]  # fmt: skip
    assert decode_request(encode(sent)).policy == POLICY
    told = engine_process.origin({"origin": worker_loop.origin(sent)})
    assert told is not None
    assert (told.job_id, told.tenant, told.user, told.policy) == ("guild__k", "guild", "u", POLICY)


async def test_what_moderation_keeps_of_a_person_goes_with_the_rest(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    decisions = LateRecord(settings)
    rules_for(POLICY, decisions.decided)(prompt("forbidden"))
    record = decisions.open()
    assert isinstance(record, Record)
    record.flush()
    record.appeal("guild__k1", "guild", "u")
    assert decisions.forget_user(None, "u") == 1
    assert record.appeals() == []


def test_attachments_that_a_tenant_does_not_accept_stop_a_prompt() -> None:
    rule = rules_for(Policy(attachments=("png",)).at())
    said = rule(replace(prompt("Read this."), attachments=("notes.txt",)))
    assert isinstance(said, Refusal)
    assert (said.rule, said.appealable) == ("attachments", False)
    assert "png" in said.message
    assert rule(replace(prompt("Read this."), attachments=("fox.PNG",))) is None
