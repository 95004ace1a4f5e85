"""The window of ids that were decided lately."""

from __future__ import annotations

import pytest

from metallm_stream.route import RecentIds


def test_an_id_is_seen_from_the_moment_it_is_added() -> None:
    """Duplicates within one batch are found before its transaction commits."""
    recent = RecentIds(limit=3)
    recent.add("a", "f1")
    assert recent.seen("a") == "f1"
    assert recent.seen("b") is None


def test_the_first_fingerprint_stands() -> None:
    """An id added again, before or after a commit, keeps its first fingerprint and its place."""
    recent = RecentIds(limit=2)
    recent.add("a", "f1")
    recent.add("a", "f2")
    assert recent.seen("a") == "f1"
    recent.add("b", "f3")
    recent.commit()
    recent.add("a", "f4")
    recent.add("c", "f5")
    recent.commit()
    assert [recent.seen(query_id) for query_id in "abc"] == [None, "f3", "f5"]


def test_the_oldest_ids_go_beyond_the_limit() -> None:
    """First in, first out, at commit."""
    recent = RecentIds(limit=2)
    for query_id in "abcd":
        recent.add(query_id, query_id.upper())
    assert len(recent) == 4
    recent.commit()
    assert len(recent) == 2
    assert [recent.seen(query_id) for query_id in "abcd"] == [None, None, "C", "D"]


def test_an_aborted_batch_leaves_no_trace() -> None:
    """After a rollback its ids may be decided again; what was committed before stays."""
    recent = RecentIds(limit=2)
    recent.add("a", "f1")
    recent.commit()
    recent.add("a", "f2")
    recent.add("b", "f3")
    recent.add("c", "f4")
    recent.rollback()
    assert [recent.seen(query_id) for query_id in "abc"] == ["f1", None, None]
    assert len(recent) == 1


def test_a_window_of_nothing_is_refused() -> None:
    """A limit below 1 would let every duplicate through."""
    with pytest.raises(ValueError, match="limit must be at least 1"):
        RecentIds(limit=0)
