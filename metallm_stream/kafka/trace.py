"""W3C trace context in records' headers: carried on as it came, made up nowhere.

Invariant: what is carried is well-formed and bounded, whatever stands in a user's headers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from confluent_kafka import Message

from metallm_stream.kafka.records import Headers, Record, headers_of

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
MAX_TRACEPARENT_BYTES = 512
MAX_TRACESTATE_BYTES = 512  # what the specification asks everyone to pass on

_PARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-[ -~]*)?"
)
_KEY = rb"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_MEMBER = re.compile(rb"[ \t]*(?:" + _KEY + rb"=[ -+\--<>-~]{0,255}[!-+\--<>-~])?[ \t]*")
_MOST_MEMBERS = 32


def traced(records: Sequence[Record], message: Message) -> list[Record]:
    """The records with the trace context of the one that they follow from, if it has any."""
    trace = trace_headers(message)
    if not trace:
        return list(records)
    return [replace(record, headers=(*record.headers, *trace)) for record in records]


def trace_headers(message: Message) -> Headers:
    """The trace context of a record.

    Empty where there is none, or where `traceparent` is malformed; a malformed `tracestate` is left
    out. Of a header that stands twice the last one counts.

    References
    ----------
    W3C Recommendation "Trace Context", sections 3.2 and 3.3.
    """
    last = dict(headers_of(message))
    parent = last.get(TRACEPARENT)
    if parent is None or not is_traceparent(parent):
        return ()
    state = last.get(TRACESTATE)
    if state is None or not is_tracestate(state):
        return ((TRACEPARENT, parent),)
    return ((TRACEPARENT, parent), (TRACESTATE, state))


def is_traceparent(value: bytes) -> bool:
    """Whether this is a `traceparent`; later versions than 00 may say more."""
    if len(value) > MAX_TRACEPARENT_BYTES:
        return False
    found = _PARENT.fullmatch(value)
    return found is not None and (found["more"] is None or not value.startswith(b"00"))


def is_tracestate(value: bytes) -> bool:
    """Whether this is a `tracestate` of up to 32 members with distinct keys."""
    members = value.split(b",")
    if len(value) > MAX_TRACESTATE_BYTES or len(members) > _MOST_MEMBERS:
        return False
    keys = [member.partition(b"=")[0].strip() for member in members if member.strip()]
    well_formed = all(_MEMBER.fullmatch(member) for member in members)
    return bool(keys) and well_formed and len(set(keys)) == len(keys)
