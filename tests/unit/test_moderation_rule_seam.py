from __future__ import annotations

import subprocess
import sys

from bots.image_prompt import ImagePrompt
from bots.moderation import rules_for
from bots.service import Prompt, Refusal
from generation.moderation.decided import Decided
from generation.moderation.policy import Policy, WordList, default_policy
from workers.contract import ReplyTo

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
