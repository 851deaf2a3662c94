"""The contract: what is accepted, what is refused, and that refusals carry no prompt."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import contract
from workers.errors import ContractError

SECRET = "the user's words"

identifiers = st.from_regex(r"\A[A-Za-z0-9-]{1,10}(_[A-Za-z0-9-]{1,10}){0,3}\Z")
options = st.builds(
    contract.ChatOptions,
    max_new_tokens=st.integers(1, 10_000),
    temperature=st.floats(0, 2),
    top_p=st.floats(0.01, 1),
    seed=st.none() | st.integers(0, 2**63 - 1),
    stop=st.lists(st.text(min_size=1, max_size=20), max_size=8).map(tuple),
)
requests = st.builds(
    contract.Request,
    v=st.just(1),
    platform=identifiers,
    tenant=identifiers,
    channel=identifiers,
    user=identifiers,
    idempotency_key=identifiers,
    reply=st.builds(
        contract.ReplyTo, front_end=identifiers, handle=st.dictionaries(st.text(max_size=5), st.text(), max_size=32)
    ),
    body=st.builds(
        contract.ChatBody,
        kind=st.just("chat"),
        messages=st.lists(
            st.builds(contract.ChatMessage, role=st.sampled_from(["system", "user", "assistant"]), content=st.text()),
            min_size=1,
            max_size=5,
        ).map(tuple),
        options=options,
    ),
    cost_gpu_s=st.floats(0.001, 1000),
    timeout_s=st.floats(0.1, 1000),
    created_at_s=st.floats(0, 2e9),
)


def request() -> contract.Request:
    return contract.Request(
        platform="terminal",
        tenant="terminal-a",
        channel="c",
        user="u",
        idempotency_key="k",
        reply=contract.ReplyTo(front_end="t"),
        body=contract.ChatBody(messages=(contract.ChatMessage(role="user", content=SECRET),)),
        created_at_s=1.0,
    )


@given(requests)
def test_every_request_survives_the_journey(original: contract.Request) -> None:
    assert contract.decode_request(contract.encode(original)) == original


@given(requests)
def test_the_tenant_can_be_read_off_the_job_id(original: contract.Request) -> None:
    assert contract.tenant_of(original.job_id) == original.tenant


def test_ids_of_other_tools_belong_to_the_nameless_tenant() -> None:
    assert contract.tenant_of("8f14e45f-ceea-467f") == "-"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_arbitrary_json_is_refused_with_a_contract_error(value: object) -> None:
    with pytest.raises(ContractError):
        contract.decode_request(json.dumps(value))


@given(st.dictionaries(st.sampled_from(sorted(contract.Request.model_fields)), json_values))
def test_objects_of_the_right_names_and_wrong_values_are_refused(value: dict[str, object]) -> None:
    with pytest.raises(ContractError):
        contract.decode_request({**value, "v": 1, "body": {"kind": "chat", "messages": []}})


@given(st.binary(max_size=50))
def test_arbitrary_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(ContractError):
        contract.decode_event(raw)


@pytest.mark.parametrize("version", [0, 2, 99, "1", None, 1.5, [1], True])
def test_unknown_versions_are_refused_by_name(version: object) -> None:
    data = json.loads(contract.encode(request())) | {"v": version}
    if version is True:  # JSON true is not the number 1
        with pytest.raises(ContractError):
            contract.decode_request(json.dumps(data))
        return
    with pytest.raises(ContractError, match="contract version"):
        contract.decode_request(json.dumps(data))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("tenant",), "two__parts"),
        (("tenant",), ""),
        (("tenant",), "a b"),
        (("idempotency_key",), "x" * 81),
        (("cost_gpu_s",), 0),
        (("cost_gpu_s",), "NaN"),
        (("timeout_s",), -1),
        (("surprise",), 1),
        (("body", "messages"), []),
        (("body", "messages", 0, "role"), "developer"),
        (("body", "options"), {"temperature": 3}),
        (("body", "options"), {"stop": [""]}),
        (("body", "kind"), "os.system"),
        (("reply", "front_end"), "../x"),
    ],
)
def test_faults_are_named_without_their_values(path: tuple[str | int, ...], value: object) -> None:
    data = json.loads(contract.encode(request()))
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ContractError, match="malformed") as refusal:
        contract.decode_request(data)
    assert SECRET not in str(refusal.value)
    assert str(path[0]) in str(refusal.value)


def test_nesting_that_overflows_the_parser_is_refused() -> None:
    with pytest.raises(ContractError):
        contract.decode_request("[" * 200_000)


def test_terminal_events_are_known_as_such() -> None:
    reply = contract.ReplyTo(front_end="t")
    kinds = {
        kind: contract.Event(type=kind, job_id="a__b", reply=reply, at_s=0).terminal
        for kind in ("started", "progress", "retrying", "finished", "failed", "refused", "cancelled")
    }
    assert kinds == {
        "started": False, "progress": False, "retrying": False,
        "finished": True, "failed": True, "refused": True, "cancelled": True,
    }  # fmt: skip
