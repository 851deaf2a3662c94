from __future__ import annotations

import asyncio

import pytest

from bots.tenant_config import Ceilings, TenantConfig, TenantConfigs
from workers import keys
from workers.errors import SettingsError

CEILINGS = Ceilings(max_answer_tokens=1_000, user_per_minute=20, models=("small",), moderation="balanced")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("persona", "a pirate", "a pirate"),
        ("images", "OFF", False),
        ("model", "small", "small"),
        ("languages", "English, Deutsch", ("English", "Deutsch")),
        ("max_answer_tokens", "1000", 1_000),
        ("user_per_minute", "2.5", 2.5),
        ("channels", "<#123456789012345678> <#223456789012345678>", ("123456789012345678", "223456789012345678")),
        ("moderation", "Strict", "strict"),
    ],
)
async def test_a_change_holds_for_everybody_and_can_be_taken_back(async_redis, name, text, value):
    configs = TenantConfigs(async_redis)
    assert getattr(await configs.change("t1", name, text, CEILINGS), name) == value
    assert getattr(await TenantConfigs(async_redis).of("t1"), name) == value
    assert await configs.of("t2") == TenantConfig()
    assert await configs.change("t1", name, None, CEILINGS) == TenantConfig()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("colour", "red"),
        ("images", "maybe"),
        ("model", "large"),
        ("languages", "<script>"),
        ("max_answer_tokens", "1001"),
        ("max_answer_tokens", "many"),
        ("user_per_minute", "0"),
        ("user_per_minute", "nan"),
        ("user_per_minute", "21"),
        ("channels", "everywhere"),
        ("moderation", "none"),
        ("moderation", "relaxed"),
        ("persona", "x" * 4_000),
    ],
)
async def test_what_is_not_allowed_changes_nothing(async_redis, name, text):
    configs = TenantConfigs(async_redis)
    with pytest.raises(SettingsError):
        await configs.change("t1", name, text, CEILINGS)
    assert await configs.of("t1") == TenantConfig()


async def test_two_administrators_at_once_lose_no_change(async_redis):
    configs = TenantConfigs(async_redis)
    await asyncio.gather(
        configs.change("t1", "persona", "a pirate", CEILINGS),
        configs.change("t1", "images", "off", CEILINGS),
        configs.change("t1", "max_answer_tokens", "100", CEILINGS),
    )
    config = await configs.of("t1")
    assert (config.persona, config.images, config.max_answer_tokens) == ("a pirate", False, 100)


async def test_what_another_release_has_written_counts_as_nothing(async_redis):
    await async_redis.set(keys.tenant_config("t1"), '{"max_answer_tokens": "lots"}')
    assert await TenantConfigs(async_redis).of("t1") == TenantConfig()


def test_a_tenant_is_never_laxer_than_the_operator():
    assert TenantConfig(moderation="relaxed").strictness("balanced") == "balanced"
    assert TenantConfig(moderation="strict").strictness("balanced") == "strict"
    assert TenantConfig().strictness("relaxed") == "relaxed"


def test_languages_go_into_the_system_text():
    assert TenantConfig().system_text("default") is None
    assert TenantConfig(languages=("English",)).system_text("Be kind.") == "Be kind. Answer only in English."
    assert TenantConfig(persona="A pirate.").system_text("Be kind.") == "A pirate."
