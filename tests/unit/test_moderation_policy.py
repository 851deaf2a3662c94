from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation.errors import PolicyError
from generation.moderation.policy import EffectivePolicy, Policy, default_policy
from generation.moderation.policy_file import read_policy
from generation.moderation.presets import PRESETS
from generation.moderation.types import ABSOLUTE, Action, Category, Decision, Finding, Span, mask

WRONG = [
    ('strictness = "balanced"\n\n[categories.sexuel]\nthreshold = 0.5\n', 3, "no such category; did you mean sexual"),
    ("[categories.sexual]\nthreshold = 0.5\n[categories.hate]\nthreshold = 1.5\n", 4, "number from 0 to 1, not 1.5"),
    ("[categories.hate]\n\nthreshold = -0.1\n", 3, "number from 0 to 1"),
    ('[categories]\nhate = { threshold = 0.5, action = "delete" }\n', 2, "'delete' is none of allow, warn"),
    ('categories.hate.action = "burn"\n', 1, "'burn' is none of"),
    (
        '[[lists]]\nwords = ["a"]\n\n[[lists]]\nname = "b"\npatterns = [\n  "fine",\n  # so far\n  "(open",\n]\n',
        9,
        "missing",
    ),
    ('[[lists]]\npatterns = ["ok", "a*"]\n', 2, "matches the empty text"),
    ('[[lists]]\nwords = ["ok", "***"]\n', 2, "neither letter nor digit"),
    ('shadows = true\nstrictness = "strict"\n', 1, "no such key; did you mean shadow"),
    ('\nstrictness = "harsh"\n', 2, "'harsh' is none of relaxed, balanced, strict"),
    ('[categories.minors]\naction = "allow"\n', 1, "always refused"),
    ("[nsfw_channel.minors]\nthreshold = 0.9\n", 1, "always refused"),
    ('[exempt]\nmod = ["minors"]\n', 2, "nobody can be exempt"),
    ("retention_days = 0\n", 1, "greater than or equal to 1"),
    ("shadow = tru\n", 1, "line 1"),
    ("shadow = true\nattachments = [\n", 2, "line 2"),
    ('[links]\nallowed = "a.example"\n', 2, "no such key; did you mean allowed_domains"),
    ('[exempt]\nmod = ["foo"]\n', 2, "exempt.mod[1]: 'foo' is none of"),
    ("[categories]\nhate = 0.5\n", 2, "0.5 stands where a table belongs"),
    ('attachments = "png"\n', 1, "'png' stands where a list in [ ] belongs"),
]


@pytest.mark.parametrize(("text", "line", "words"), WRONG)
def test_a_wrong_policy_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(PolicyError) as refused:
        read_policy(text, "guild.toml")
    message = str(refused.value)
    assert words in message
    assert message.startswith(f"guild.toml:{line}: ") or f"line {line}" in message


def test_a_policy_survives_the_wire() -> None:
    policy = read_policy('[[lists]]\nwords = ["darn"]\n[exempt]\nmod = ["*"]\n[categories.hate]\nthreshold = 0.3\n')
    assert Policy.model_validate_json(policy.model_dump_json()) == policy
    effective = policy.at(nsfw=True, roles=["mod"])
    assert EffectivePolicy.model_validate_json(effective.model_dump_json(exclude_defaults=True)) == effective


def test_channels_not_marked_nsfw_are_stricter() -> None:
    policy = Policy()
    finding = Finding(Category.SEXUAL, 0.95, "model:x", "1")
    assert policy.at().judge(finding).action is Action.REFUSE
    assert policy.at(nsfw=True).judge(finding).action is Action.BLUR


def test_an_nsfw_channel_never_overrules_what_a_tenant_has_looser() -> None:
    policy = read_policy('[categories.suggestive]\naction = "allow"\nthreshold = 0.2\n')
    assert policy.at(nsfw=True).settings[Category.SUGGESTIVE] == (0.2, Action.ALLOW)


def test_a_role_is_exempt_from_what_it_is_exempt_from() -> None:
    policy = read_policy('[exempt]\nmod = ["*"]\nartist = ["sexual"]\n')
    sexual, hate = Finding(Category.SEXUAL, 1.0, "m", "1"), Finding(Category.HATE, 1.0, "m", "1")
    assert policy.at(roles=["artist"]).judge(sexual).action is Action.ALLOW
    assert policy.at(roles=["artist"]).judge(hate).action is Action.REFUSE
    assert policy.at(roles=["mod", "artist"]).judge(hate).action is Action.ALLOW


@given(st.booleans(), st.sampled_from(sorted(PRESETS)), st.sampled_from(sorted(ABSOLUTE)), st.booleans())
def test_absolute_categories_are_refused_whatever_the_policy_says(
    nsfw: bool, strictness: str, category: Category, shadow: bool
) -> None:
    policy = Policy.model_validate(
        {"strictness": strictness, "shadow": shadow, "exempt": {"admin": ["*"]}, "categories": {}}
    )
    decision = policy.at(nsfw=nsfw, roles=["admin"]).decide("prompt", [Finding(category, 1.0, "rule:x", "1")])
    assert decision.action.stops


def test_a_forged_effective_policy_cannot_open_an_absolute_category() -> None:
    forged = EffectivePolicy.model_validate({"settings": {"minors": [1.0, "allow"]}, "shadow": True})
    assert forged.decide("output", [Finding(Category.MINORS, 0.6, "rule:x", "1")]).action.stops


def test_shadow_mode_decides_and_does_not_act() -> None:
    decision = Policy(shadow=True).at().decide("prompt", [Finding(Category.HATE, 0.99, "m", "1")])
    assert decision.action is Action.ALLOW
    assert decision.decisive is not None
    assert (decision.decisive.action, decision.decisive.shadow) == (Action.REFUSE, True)


def test_a_list_sets_its_own_action_and_the_strictest_counts() -> None:
    policy = default_policy()
    soft = Finding(Category.BLOCKED_WORDS, 1.0, "rule:soft", "1", action=Action.WARN)
    hard = Finding(Category.THREAT, 0.99, "model:x", "1")
    assert policy.decide("prompt", [soft]).action is Action.WARN
    assert policy.decide("prompt", [soft, hard]).action is Action.REFUSE


def test_masking_hides_what_overlaps_once() -> None:
    assert mask("call 12345 now", [Span(5, 10, "[phone]"), Span(7, 12)]) == "call [phone]ow"
    assert Decision("prompt").masked("as it is") == "as it is"


def test_a_verdict_to_mask_without_a_place_hides_everything() -> None:
    decision = default_policy().decide("output", [Finding(Category.SECRETS, 1.0, "model:x", "1")])
    assert decision.masked("the key is under the mat") == "***"


def test_the_policy_that_the_documents_show_is_right() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/moderation.md").read_text("utf-8")
    shown = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0]
    assert read_policy(shown).lists[0].action is Action.MASK
    assert all(f"`{category}`" in text for category in Category)
