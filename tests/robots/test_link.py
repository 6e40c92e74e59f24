"""What is sent arrives as it was, noise closes the link, and nobody waits for who does not read."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from robots.link import WAITING, Link, LinkClosed, decode, encode

kinds = st.sampled_from([np.uint8, np.float32, np.float64, np.int64, np.bool_])
shapes = st.sampled_from([(), (3,), (2, 0), (2, 3)])
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | arrays.arrays(kinds, shapes)
)
words = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return (
            isinstance(other, np.ndarray)
            and one.dtype == other.dtype
            and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        )
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@settings(deadline=None)
@given(message=st.dictionaries(st.text(max_size=4), words, max_size=4))
def test_what_is_sent_arrives_as_it_was(message: dict[str, Any]) -> None:
    assert same(decode(encode(message)), message)


@settings(deadline=None)
@given(noise=st.binary(max_size=200))
def test_noise_is_no_message(noise: bytes) -> None:
    with pytest.raises(LinkClosed):
        decode(noise)


@settings(deadline=None)
@given(at=st.integers(0, 10_000), to=st.integers(0, 255))
def test_a_changed_byte_gives_another_message_or_none_but_no_other_error(at: int, to: int) -> None:
    data = bytearray(encode({"a": np.arange(5.0), "b": [1, {"c": "d"}]}))
    data[at % len(data)] = to
    with contextlib.suppress(LinkClosed):
        assert isinstance(decode(bytes(data)), dict)


def test_no_pickle_can_be_sent_or_come() -> None:
    with pytest.raises(TypeError, match="object cannot be sent"):
        encode({"a": np.array([object()])})
    with pytest.raises(TypeError, match="type cannot be sent"):
        encode({"a": Link})


def links() -> tuple[Link, Link]:
    one, other = Link.pair()
    return Link(one), Link(other)


def test_messages_keep_their_order_and_large_ones_arrive() -> None:
    here, there = links()
    picture = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)
    here.send({"n": 0, "picture": picture})
    here.send({"n": 1})
    first = there.receive(5.0)
    assert first is not None
    np.testing.assert_array_equal(first["picture"], picture)
    assert there.receive(5.0) == {"n": 1}
    assert there.receive(0.01) is None
    here.close()
    with pytest.raises(LinkClosed, match="gone"):
        there.receive(1.0)
    there.close()


def test_nobody_waits_for_who_does_not_read() -> None:
    here, there = links()
    picture = np.zeros((400, 400, 3), np.uint8)
    waits = []

    def send_on() -> None:
        while len(waits) < WAITING + 20:
            waits.append(-time.monotonic())
            here.send({"picture": picture})
            waits[-1] += time.monotonic()

    with pytest.raises(LinkClosed, match="unread"):
        send_on()
    assert max(waits) < 0.1
    here.close()
    there.close()


def test_noise_from_the_other_end_closes_the_link() -> None:
    one, other = socket.socketpair()
    link = Link(one)
    other.sendall(os.urandom(64).replace(b"\x00", b"\x01"))
    with pytest.raises(LinkClosed, match="none of ours"):
        link.receive(1.0)
    link.close()
    other.close()
