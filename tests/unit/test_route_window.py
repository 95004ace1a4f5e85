"""The window of ids that were decided lately."""

from __future__ import annotations

import pytest

from metallm_stream.route import RecentIds


def test_an_id_is_seen_from_the_moment_it_is_added() -> None:
    """Duplicates within one batch are found."""
    recent = RecentIds(limit=3)
    recent.add("a", "f1")
    assert recent.seen("a") == "f1"
    assert recent.seen("b") is None


def test_the_first_fingerprint_stands() -> None:
    """An id added again keeps its first fingerprint and its place in the line."""
    recent = RecentIds(limit=2)
    recent.add("a", "f1")
    recent.add("b", "f2")
    recent.add("a", "f3")
    assert recent.seen("a") == "f1"
    recent.add("c", "f4")
    assert [recent.seen(query_id) for query_id in "abc"] == [None, "f2", "f4"]


def test_the_oldest_ids_go_beyond_the_limit() -> None:
    """First in, first out."""
    recent = RecentIds(limit=2)
    for query_id in "abcd":
        recent.add(query_id, query_id.upper())
    assert len(recent) == 2
    assert [recent.seen(query_id) for query_id in "abcd"] == [None, None, "C", "D"]


def test_a_window_of_nothing_is_refused() -> None:
    """A limit below 1 would let every duplicate through."""
    with pytest.raises(ValueError, match="limit must be at least 1"):
        RecentIds(limit=0)
