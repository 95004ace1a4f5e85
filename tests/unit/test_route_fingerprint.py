"""When two queries with one id are the same query."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from pydantic import ValidationError

from metallm_stream.events import Message, Query
from metallm_stream.route import fingerprint


def of(**fields: Any) -> str:
    return fingerprint(Query(**{"query_id": "q", "text": "2 + 2?", **fields}))


def test_the_fingerprint_is_the_same_in_every_release() -> None:
    """Stored fingerprints must stay comparable: this value may never change."""
    asked = of(
        system="Be brief.",
        messages=(Message(role="user", content="Hello \u2603"),),
        labels=("4", "5"),
        task="sums",
    )
    assert asked == "1d57ed819990b5d914b487d925116c45"


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "2 + 3?"},
        {"system": "2 + 2?"},
        {"messages": (Message(role="user", content="x"),)},
        {"labels": ("4",)},
        {"labels": ("4", "5")},
        {"task": "sums"},
    ],
)
def test_another_question_has_another_fingerprint(fields: dict[str, Any]) -> None:
    """Text, system, earlier turns, labels and task are what is asked."""
    assert of(**fields) != of()


@pytest.mark.parametrize(
    "fields",
    [
        {"query_id": "other"},
        {"cost_weight": 0.5, "latency_weight": 1.0, "max_cost_usd": 0.1, "min_quality": 0.5},
        {"models": ("mini",), "deadline_s": 3.0, "metadata": {"tier": "gold"}},
        {"asked_at": "2026-01-01T00:00:00Z", "generation": {"temperature": 0.5}},
    ],
)
def test_how_it_is_to_be_answered_does_not_matter(fields: dict[str, Any]) -> None:
    """A repeated query with other wishes is still the same query."""
    assert of(**fields) == of()


def test_parts_cannot_be_shifted_from_one_field_to_another() -> None:
    """Fields are delimited: the same characters elsewhere are another question."""
    assert of(labels=("ab", "c")) != of(labels=("a", "bc"))
    assert of(system="a", task="b") != of(system="b", task="a")


@given(st.text(max_size=20), st.none() | st.text(st.characters(max_codepoint=127), max_size=20))
def test_it_never_changes_between_releases(text: str, task: str | None) -> None:
    """Whatever writes the JSON, its bytes are those that stored fingerprints were made of."""
    try:
        query = Query(query_id="q", text=text, task=task)
    except ValidationError:
        reject()
    asked = json.dumps([text, None, [], None, task], separators=(",", ":"))
    assert fingerprint(query) == hashlib.sha256(asked.encode()).hexdigest()[:32]
