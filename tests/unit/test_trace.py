"""W3C trace context: what is carried on, and what is ignored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metallm_stream.kafka.trace import (
    MAX_TRACEPARENT_BYTES,
    MAX_TRACESTATE_BYTES,
    is_traceparent,
    is_tracestate,
)

TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
PARENT = b"00-" + TRACE + b"-" + SPAN + b"-01"


@pytest.mark.parametrize("value", [PARENT, PARENT[:-2] + b"ff", b"01" + PARENT[2:] + b"-more"])
def test_a_well_formed_parent_is_carried(value: bytes) -> None:
    """Whatever its flags, and what later versions of the specification add at its end."""
    assert is_traceparent(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        PARENT[:-1],
        PARENT + b"\n",
        PARENT + b"-more",
        PARENT.upper(),
        b"ff" + PARENT[2:],
        b"00-" + b"0" * 32 + b"-" + SPAN + b"-01",
        b"00-" + TRACE + b"-" + b"0" * 16 + b"-01",
        b"01" + PARENT[2:] + b"more",
        b"01" + PARENT[2:] + b"-" + b"x" * MAX_TRACEPARENT_BYTES,
        "00-é".encode(),
    ],
)
def test_a_malformed_parent_is_ignored(value: bytes) -> None:
    """Lengths, letters, zeros, the version that is none, and what would not be bounded."""
    assert not is_traceparent(value)


@pytest.mark.parametrize(
    "value",
    [
        b"congo=t61rcWkgMzE",
        b"congo=a b,rojo=00f067aa0ba902b7",
        b"1fw529a3039@dt=FfAAAA , other=x:y;z",
        b"a=1,,b=2",
        b",".join(b"k%d=v" % number for number in range(32)),
    ],
)
def test_a_well_formed_state_is_carried(value: bytes) -> None:
    """Members with distinct keys, empty ones among them."""
    assert is_tracestate(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" , ",
        b"novalue",
        b"a=b=c",
        b"a=1,a=2",
        b"A=1",
        b"a=\x00",
        b"a=1\n",
        b",".join(b"k%d=v" % number for number in range(33)),
        b"a=" + b"x" * MAX_TRACESTATE_BYTES,
    ],
)
def test_a_malformed_state_is_left_out(value: bytes) -> None:
    """As a whole, beyond 32 members or 512 bytes as well."""
    assert not is_tracestate(value)


@given(st.binary(max_size=600))
def test_whatever_stands_in_a_header_is_carried_only_if_it_is_printable_and_short(
    value: bytes,
) -> None:
    """No header makes the check itself fail."""
    for accepted in (is_traceparent(value), is_tracestate(value)):
        assert not accepted or (len(value) <= MAX_TRACESTATE_BYTES and value.isascii())
