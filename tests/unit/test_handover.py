"""Hand-overs without a platform: what calls a person, when people are there, and what the store keeps and forgets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bots.answers import inert
from bots.handover import hours, triggers
from bots.handover.similarity import alike
from bots.handover.store import SupportStore
from bots.handover.tickets import Customer, Ticket

ALICE = Customer("discord", "discord-1", "7", "55", "55")
ELSEWHERE = Customer("discord", "discord-2", "7", "55", "55")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SupportStore]:
    if request.param == "postgresql":
        store = SupportStore(request.getfixturevalue("postgres").database())
    else:
        store = SupportStore(f"sqlite:///{tmp_path / 'support.sqlite'}")
    yield store
    store.close()


def opened(store: SupportStore, customer: Customer = ALICE, question: str = "Do you sell gift cards?") -> Ticket:
    ticket, _ = store.open_ticket(customer, "asked", question, "summary", "99")
    return ticket


@pytest.mark.parametrize("text", ["Can I talk to a human?", "give me a real person", "agent!", "转人工", "我要找真人"])
def test_somebody_who_asks_for_a_person_is_understood(text: str) -> None:
    assert triggers.wants_person(text)


@pytest.mark.parametrize("text", ["How old must a person be?", "Is a human heart heavy?", "Which agent cleans glass?"])
def test_questions_about_people_are_none_for_people(text: str) -> None:
    assert not triggers.wants_person(text)
    assert not triggers.is_angry(text)


def test_a_request_for_a_person_is_no_part_of_the_question() -> None:
    assert triggers.without_request("Do you sell gift cards? I want to talk to a human") == "Do you sell gift cards?"
    assert triggers.without_request("礼品卡有效期多长？转人工。") == "礼品卡有效期多长？"
    assert not triggers.without_request("human please, I want to speak to an agent")


def test_anger_is_words_or_shouting() -> None:
    assert triggers.is_angry("This is ridiculous")
    assert triggers.is_angry("WHERE IS MY ORDER NOW")
    assert triggers.is_angry("你们太差了")
    assert not triggers.is_angry("Is the HTTP API of your CDN reachable over TLS?")


def test_topics_are_whole_words_in_english_and_parts_in_chinese() -> None:
    assert triggers.topic_of("my art is lost", ("art",)) == "art"
    assert triggers.topic_of("the party", ("art",)) is None
    assert triggers.topic_of("我要退款", ("退款",)) == "退款"


def test_working_hours() -> None:
    known = hours.parse("Mon-Fri 09:00-17:00 Europe/Berlin")
    assert known.open_at(datetime(2026, 1, 5, 8, 30, tzinfo=UTC))  # a Monday, 09:30 there
    friday_evening = datetime(2026, 1, 9, 18, 0, tzinfo=UTC)
    assert not known.open_at(friday_evening)
    assert known.next_opening(friday_evening).isoformat() == "2026-01-12T09:00:00+01:00"
    for wrong in ("always", "Mon-Fri 17:00-09:00 UTC", "Mon-Fri 09:00-17:00 Nowhere/Else", "Xyz 09:00-17:00 UTC"):
        with pytest.raises(ValueError):  # noqa: PT011 - the message is shown to people, its words may change
            hours.parse(wrong)


def test_a_ticket_is_opened_once_and_its_postings_come_in_order(store: SupportStore) -> None:
    ticket = opened(store)
    assert store.open_ticket(ALICE, "again", "q", "s", "99") == (ticket, False)
    store.post(ticket, "card", "first")
    store.post(ticket, "customer", "second")
    (posting,) = store.claim("discord")
    assert (posting.text, posting.where) == ("first", "card")
    assert store.claim("discord") == [], "it is being posted, and what follows waits for it"
    store.posted(posting)
    (posting,) = store.claim("discord")
    assert posting.text == "second"
    store.posted(posting)
    store.post(ticket, "team", "third")
    assert store.claim("discord")[0].number > posting.number, "a platform would take the same number for a repetition"


def test_what_is_said_twice_by_the_platform_is_told_once(store: SupportStore) -> None:
    ticket = opened(store)
    assert store.say(ticket, "m1", True, "mod", "hello", "mod: hello")
    assert not store.say(ticket, "m1", True, "mod", "hello", "mod: hello")
    assert store.said_by_team(ticket) == ["hello"]


def test_two_presses_at_once_move_a_ticket_once(store: SupportStore) -> None:
    ticket = opened(store)
    assert store.move(ticket, "taken", "one")
    assert not store.move(ticket, "taken", "other")


def test_tenants_do_not_see_one_another(store: SupportStore) -> None:
    ticket = opened(store)
    draft = store.draft(ticket, "Yes.")
    assert store.ticket("discord-2", ticket.ticket_id) is None
    assert store.drafts("discord-2") == []
    assert store.decide("discord-2", draft.draft_id, "approved", "eve") is None
    assert store.drafts("discord-1")[0].state == "pending"


def test_near_duplicates_of_drafts_are_merged(store: SupportStore) -> None:
    first = store.draft(opened(store), "Yes, gift cards are sold at the counter.")
    store.move(opened(store), "resolved", "mod")
    again = store.draft(opened(store, question="do you sell gift cards"), "Yes: gift cards are sold at the counter!")
    assert again.draft_id == first.draft_id
    assert again.times == 2
    assert not alike("Do you sell gift cards?", "Where is the next shop?")


def test_the_report_shows_what_went_unanswered_or_did_not_help(store: SupportStore) -> None:
    assert store.note(ALICE, "j1", "good one", "answer", 0.9) == 0
    assert store.note(ALICE, "j2", "unknown one", "unknown", 0.1) == 1
    assert store.note(ALICE, "j3", "bad answer", "answer", 0.9) == 0
    store.judge("discord-1", "j3", "8", helpful=False)
    store.judge("discord-1", "j1", "8", helpful=True)
    assert [each.question for each in store.report("discord-1")] == ["bad answer", "unknown one"]


def test_a_person_who_is_forgotten_is_gone_everywhere(store: SupportStore) -> None:
    ticket = opened(store)
    store.say(ticket, "m1", False, "alice", "my secret", "alice: my secret")
    draft = store.draft(ticket, "Yes.")
    store.decide("discord-1", draft.draft_id, "approved", "mod")
    store.note(ALICE, "j1", "my secret", "unknown", 0.1)
    opened(store, ELSEWHERE)
    assert [each["question"] for each in store.kept_about("discord-1", "7")] == [ticket.question, "my secret"]
    assert store.learnt_from("discord-1", "7") == [("discord-1", draft.draft_id)]
    assert store.forget_user("discord-1", "7") == 1
    assert store.open_for(ALICE) is None
    assert store.claim("discord") == []
    assert store.drafts("discord-1", None) == []
    assert store.report("discord-1") == []
    assert store.open_for(ELSEWHERE) is not None


def test_one_conversation_is_forgotten_and_whoever_waits_there_is_not_dropped(store: SupportStore) -> None:
    closed = opened(store)
    draft = store.draft(closed, "Yes.")
    store.decide("discord-1", draft.draft_id, "approved", "mod")
    store.move(closed, "resolved", "mod")
    waiting = opened(store, question="my secret")
    store.say(waiting, "m1", False, "alice", "my secret", "alice: my secret")
    store.note(ALICE, "j1", "my secret", "unknown", 0.1)
    assert store.learnt_from("discord-1", "7", "56".__eq__) == []
    assert store.forget_user("discord-1", "7", "56".__eq__) == 0
    assert store.learnt_from("discord-1", "7", "55".__eq__) == [("discord-1", draft.draft_id)]
    assert store.forget_user("discord-1", "7", "55".__eq__) == 2
    assert store.drafts("discord-1", None) == []
    assert "secret" not in str(store.kept_about("discord-1", "7"))
    left = store.open_for(ALICE)
    assert left is not None
    assert left.ticket_id == waiting.ticket_id


def test_text_of_documents_is_inert() -> None:
    shown = inert("# Win\n[here](https://evil.example/a_b) <@1> `x` **now** www.evil.example")
    assert shown == (
        "\\# Win\n\\[here\\](`https://evil.example/a_b`) \\<@1\\> \\`x\\` \\*\\*now\\*\\* `www.evil.example`"
    )
