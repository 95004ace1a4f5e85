"""The catalogue as a fold over the `models` topic."""

from __future__ import annotations

import pytest

from metallm_stream.arms import Catalogue
from metallm_stream.errors import InvalidEvent
from metallm_stream.events import Model, Price


def model(arm: str, **fields: object) -> Model:
    known: dict[str, object] = {"arm": arm, "provider": "openai", "model": arm}
    return Model.model_validate(known | fields)


def test_the_newest_record_of_a_key_counts() -> None:
    """A price change replaces the arm, and leaves no second one."""
    catalogue = Catalogue()
    catalogue.apply("mini", model("mini"))
    dear = model("mini", price=Price(input_usd_per_mtok=9, output_usd_per_mtok=9))
    catalogue.apply("mini", dear)
    assert len(catalogue) == 1
    assert catalogue["mini"] == dear


def test_arms_are_in_alphabetical_order_however_they_came() -> None:
    """The order of columns does not depend on the order of records."""
    names = ["c", "a", "b"]
    catalogue, other = Catalogue(), Catalogue()
    for name in names:
        catalogue.apply(name, model(name))
    for name in reversed(names):
        other.apply(name, model(name))
    assert list(catalogue) == list(other) == ["a", "b", "c"]
    assert catalogue.arms == other.arms


def test_a_tombstone_removes_an_arm_and_a_second_one_does_nothing() -> None:
    """Tombstones are repeated when a compacted topic is read again."""
    catalogue = Catalogue()
    catalogue.apply("mini", model("mini"))
    catalogue.apply("mini", None)
    catalogue.apply("mini", None)
    assert list(catalogue) == []


def test_an_arm_under_a_foreign_key_is_refused() -> None:
    """Compaction would keep the wrong one; nothing of the catalogue changes."""
    catalogue = Catalogue()
    with pytest.raises(InvalidEvent, match="use the arm as key"):
        catalogue.apply("maxi", model("mini"))
    assert (len(catalogue), catalogue.revision) == (0, 0)


def test_every_record_moves_the_revision() -> None:
    """Whoever follows the catalogue sees that something came."""
    catalogue = Catalogue()
    catalogue.apply("a", model("a"))
    catalogue.apply("a", model("a"))
    catalogue.apply("a", None)
    assert catalogue.revision == 3


def test_a_snapshot_of_the_arms_stays_as_it_was() -> None:
    """A batch in decision is not changed by a record that comes meanwhile."""
    catalogue = Catalogue()
    catalogue.apply("a", model("a"))
    before = catalogue.arms
    catalogue.apply("b", model("b"))
    assert list(before) == ["a"]
    with pytest.raises(TypeError):
        before["c"] = model("c")  # type: ignore[index]
