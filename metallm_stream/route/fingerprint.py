"""What makes two queries with one id the same query.

Invariant: the fingerprint depends on what is asked alone (text, system, earlier turns, labels or
form of the answer, task), not on how it is to be answered or judged, and never changes between
releases, since it is stored with every decision.
"""

from __future__ import annotations

import hashlib
import json

import orjson

from metallm_stream.events import Choice, Query

_ENCODER = json.JSONEncoder(separators=(",", ":"))


def fingerprint(query: Query) -> str:
    """The first 32 hexadecimal digits (128 bits) of a SHA-256 over what is asked.

    >>> first = Query(query_id="a", text="2 + 2?")
    >>> fingerprint(first) == fingerprint(Query(query_id="b", text="2 + 2?", cost_weight=0.3))
    True
    >>> fingerprint(first) == fingerprint(Query(query_id="a", text="2 + 3?"))
    False
    """
    turns = [[turn.role, turn.content] for turn in query.messages or ()]
    labels = None if query.labels is None else list(query.labels)
    asked: list[object] = [query.text, query.system, turns, labels, query.task]
    if query.answer is not None:  # absent before there were forms
        asked.append(query.answer.kind)
    if isinstance(query.answer, Choice):
        asked.append(list(query.answer.options))
    return hashlib.sha256(_ascii_json(asked)).hexdigest()[:32]


def _ascii_json(asked: list[object]) -> bytes:
    """Compact JSON in ASCII, as the standard library writes it."""
    try:
        fast = orjson.dumps(asked)
    except orjson.JSONEncodeError:  # half a surrogate pair, which is not UTF-8
        return _ENCODER.encode(asked).encode()
    # Of ASCII the two write all but DEL alike.
    is_alike = fast.isascii() and b"\x7f" not in fast
    return fast if is_alike else _ENCODER.encode(asked).encode()
