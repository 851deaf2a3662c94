"""Payloads as they come off the wire: an object or a ``ContractError`` that quotes nothing."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.inputs import deep, examples, garbage, mutated
from tests.jobs import chat_request, payload
from workers.contract import Event, decode_event, decode_request, encode
from workers.engine_channel import Channel
from workers.errors import ContractError

SECRET = "words of a person"
REQUEST = payload(chat_request(prompt=SECRET))
EVENT = json.loads(
    encode(Event.model_validate({"type": "finished", "job_id": "t1__k1", "reply": {"front_end": "term"}, "at_s": 1.0}))
)


def read(decode: Callable[[bytes], object], raw: bytes) -> None:
    try:
        decode(raw)
    except ContractError as error:
        assert SECRET not in str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize("decode", [decode_request, decode_event])
def test_garbage_is_refused(decode):
    @examples(60)
    @given(garbage)
    def check(raw):
        read(decode, raw)

    check()
    read(decode, deep(1_000_000).encode())


@examples(150)
@given(mutated(REQUEST))
def test_a_request_with_something_wrong_is_read_or_refused(data):
    read(decode_request, json.dumps(data).encode())


@examples(80)
@given(mutated(EVENT))
def test_an_event_with_something_wrong_is_read_or_refused(data):
    read(decode_event, json.dumps(data).encode())


@examples(40)
@given(st.lists(st.lists(st.integers() | st.text(max_size=30), min_size=1, max_size=4), max_size=6), st.integers(1, 40))
def test_frames_arrive_whole_however_they_are_cut(messages, size):
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    raw = b"".join(struct.pack(">I", len(body)) + body for body in (json.dumps(each).encode() for each in messages))
    received = []
    for at in range(0, len(raw), size):
        theirs.send(raw[at : at + size])
        received += channel.receive()
    channel.close()
    theirs.close()
    assert received == messages
