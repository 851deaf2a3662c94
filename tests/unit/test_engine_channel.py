"""The channel between a worker and its engine: framed, ordered, and never waiting for each other."""

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.engine_channel import Channel, Message


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    left, right = map(Channel, socket.socketpair())
    yield left, right
    left.close()
    right.close()


def test_messages_arrive_in_order_and_whole(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    left.send(["a", 1], ["b", {"text": "größe 東京"}])
    left.send(["c", None])
    assert right.receive() == [["a", 1], ["b", {"text": "größe 東京"}], ["c", None]]
    assert right.receive() == []


def test_two_full_sides_do_not_wait_for_each_other(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    big = "x" * 5_000_000
    left.send(["to right", big])
    right.send(["to left", big])
    assert left.unsent_bytes > 0
    assert right.unsent_bytes > 0
    found: list[Message] = []
    for _ in range(10_000):
        found += left.receive() + right.receive()
        left.flush()
        right.flush()
        if len(found) == 2:
            break
    assert sorted(message[0] for message in found) == ["to left", "to right"]
    assert left.unsent_bytes == right.unsent_bytes == 0


def test_what_was_said_before_the_end_is_heard(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    left.send(["last words"])
    left.close()
    assert right.receive() == [["last words"]]
    right.receive()
    assert right.closed
    right.send(["nobody hears"])
    assert right.closed


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.text(max_size=50) | st.integers(-1000, 1000) | st.none(), max_size=4), max_size=20))
def test_anything_that_is_json_comes_through(messages: list[Message]) -> None:
    left, right = map(Channel, socket.socketpair())
    try:
        for message in messages:
            left.send(message)
        assert right.receive() == messages
    finally:
        left.close()
        right.close()
