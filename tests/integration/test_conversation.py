from __future__ import annotations

import asyncio

from bots.conversation import CHARS_PER_TOKEN, Conversations, Turn, within_budget
from bots.settings import ConversationSettings
from workers import keys

SETTINGS = ConversationSettings(persona="Be kind.", max_history_turns=4, retention_s=600)


def spoken(messages) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


async def test_the_model_sees_persona_history_and_question(async_redis):
    talks = Conversations(async_redis, SETTINGS)
    await talks.ask("t", "c", "t__1", "One?")
    await talks.answer("t", "c", "t__1", "Un.")
    await talks.ask("t", "c", "t__2", "Two?")
    assert spoken(await talks.messages("t", "c", "t__2", "Two?")) == [
        ("system", "Be kind."),
        ("user", "One?"),
        ("assistant", "Un."),
        ("user", "Two?"),
    ]


async def test_everything_is_recorded_once_however_often_it_is_delivered(async_redis):
    talks = Conversations(async_redis, SETTINGS)
    for _ in range(3):
        await talks.ask("t", "c", "t__1", "One?")
    news = [await talks.answer("t", "c", "t__1", text) for text in ("Un.", "Un.", "Another.")]
    assert news == [True, False, False]
    assert (await talks.history("t", "c")).turns == (Turn("t__1", "One?", "Un."),)


async def test_answers_keep_the_order_of_their_questions(async_redis):
    talks = Conversations(async_redis, SETTINGS)
    for number in (1, 2, 3):
        await talks.ask("t", "c", f"t__{number}", f"q{number}")
    for number in (3, 1):
        await talks.answer("t", "c", f"t__{number}", f"a{number}")
    assert (await talks.history("t", "c")).turns == (
        Turn("t__1", "q1", "a1"),
        Turn("t__2", "q2", None),
        Turn("t__3", "q3", "a3"),
    )
    assert spoken(await talks.messages("t", "c", "t__4", "q4"))[1:] == [
        ("user", "q1"),
        ("assistant", "a1"),
        ("user", "q3"),
        ("assistant", "a3"),
        ("user", "q4"),
    ]


async def test_concurrent_writers_lose_nothing(async_redis):
    talks = Conversations(async_redis, SETTINGS.model_copy(update={"max_history_turns": 100}))
    jobs = [f"t__{number}" for number in range(40)]
    await asyncio.gather(*(talks.ask("t", "c", job, job) for job in jobs for _ in range(2)))
    await asyncio.gather(*(talks.answer("t", "c", job, job.upper()) for job in jobs for _ in range(2)))
    turns = (await talks.history("t", "c")).turns
    assert sorted(turn.job_id for turn in turns) == sorted(jobs)
    assert all(turn.answer == turn.question.upper() for turn in turns)


async def test_old_turns_are_forgotten(async_redis):
    talks = Conversations(async_redis, SETTINGS)
    for number in range(10):
        await talks.ask("t", "c", f"t__{number}", f"q{number}")
        await talks.answer("t", "c", f"t__{number}", f"a{number}")
    assert [turn.question for turn in (await talks.history("t", "c")).turns] == ["q6", "q7", "q8", "q9"]
    assert await async_redis.hlen(keys.conversation("t", "c")) == 4 * 4 + 1


async def test_no_history_at_all_can_be_asked_for(async_redis):
    talks = Conversations(async_redis, SETTINGS.model_copy(update={"max_history_turns": 0}))
    await talks.ask("t", "c", "t__1", "One?")
    assert not await talks.answer("t", "c", "t__1", "Un.")
    assert (await talks.history("t", "c")).turns == ()


async def test_a_dropped_question_is_gone_but_an_answered_one_stays(async_redis):
    talks = Conversations(async_redis, SETTINGS)
    await talks.ask("t", "c", "t__1", "One?")
    await talks.answer("t", "c", "t__1", "Un.")
    await talks.ask("t", "c", "t__2", "Two?")
    await talks.drop("t", "c", "t__1")
    await talks.drop("t", "c", "t__2")
    await talks.drop("t", "c", "t__3")
    assert [turn.job_id for turn in (await talks.history("t", "c")).turns] == ["t__1"]


async def test_personas_belong_to_their_conversation(async_redis):
    talks = Conversations(async_redis, SETTINGS)
    await talks.set_persona("t", "c", "Be short.")
    assert spoken(await talks.messages("t", "c", "t__1", "Hi"))[0] == ("system", "Be short.")
    assert spoken(await talks.messages("t", "other", "t__1", "Hi"))[0] == ("system", "Be kind.")
    await talks.set_persona("t", "c", "")
    assert spoken(await talks.messages("t", "c", "t__1", "Hi")) == [("user", "Hi")]
    await talks.set_persona("t", "c", None)
    assert spoken(await talks.messages("t", "c", "t__1", "Hi"))[0] == ("system", "Be kind.")


async def test_a_forgotten_conversation_stays_forgotten(async_redis):
    talks = Conversations(async_redis, SETTINGS)
    await talks.ask("t", "c", "t__1", "One?")
    assert await talks.forget("t", "c")
    assert not await talks.answer("t", "c", "t__1", "Un."), "an answer that comes later does not bring it back"
    assert not await async_redis.exists(keys.conversation("t", "c"))
    assert not await talks.forget("t", "c")


async def test_conversations_expire(async_redis):
    talks = Conversations(async_redis, SETTINGS)
    await talks.ask("t", "c", "t__1", "One?")
    assert 0 < await async_redis.ttl(keys.conversation("t", "c")) <= 600
    await talks.set_persona("t", "d", "Be short.")
    assert 0 < await async_redis.ttl(keys.conversation("t", "d")) <= 600


def test_the_budget_keeps_the_latest_whole_turns():
    turns = [Turn(f"t__{number}", "q" * 50, "a" * 50) for number in range(5)]
    assert len(within_budget(turns, 250 // CHARS_PER_TOKEN)) == 2 * 2
    assert within_budget(turns, 0) == []
    assert len(within_budget(turns, 10_000)) == 2 * 5
    assert within_budget(turns, 100)[0].role == "user"
