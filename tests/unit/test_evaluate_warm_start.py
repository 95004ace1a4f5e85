"""Prior knowledge: what it adds to the sums, and that a wrong one is outgrown."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.policy.warm_start import utilities_from
from metallm_stream.errors import InvalidEvent
from metallm_stream.evaluate import LoggedQuery, prior, prior_weight, read_logged
from metallm_stream.policy import Sums, Usage, mean_of

ARMS = ("a", "b", "c")


def logged(number: int, **outcomes: tuple[float | None, float | None]) -> LoggedQuery:
    """One query with quality and cost of some arms."""
    found = {arm: {"quality": quality, "cost": cost} for arm, (quality, cost) in outcomes.items()}
    return LoggedQuery.model_validate(
        {"query_id": str(number), "text": f"text {number}", "outcomes": found}
    )


def test_each_outcome_counts_its_weight() -> None:
    """Of the arms that a line has; qualities teach quality, and costs cost."""
    lines = [logged(0, a=(1.0, 0.02), b=(0.5, None)), logged(1, a=(0.0, 0.04), c=(None, 0.01))]
    contexts = np.array([[1.0, 0.0], [0.0, 1.0]])
    sums = prior(lines, contexts, 0.25)
    expected = Sums(2)
    expected.add_quality("a", contexts, [1.0, 0.0], [0.25, 0.25])
    expected.add_quality("b", contexts[:1], [0.5], [0.25])
    assert all(np.array_equal(sums.gram(arm), expected.gram(arm)) for arm in ARMS)
    assert mean_of(sums.usage("a"), Usage.COST_USD, Usage.COST_CALLS) == pytest.approx(0.03)
    assert sums.usage("a")[Usage.COST_CALLS] == 0.5
    assert sums.usage("b").tolist() == np.zeros(len(Usage)).tolist()
    assert [sums.usage(arm)[Usage.CALLS] for arm in ARMS] == [0, 0, 0]


def test_it_is_forgotten_by_the_same_clocks() -> None:
    """Evidence as of the time at which it was added."""
    sums = prior([logged(0, a=(1.0, 0.5))], np.ones((1, 1)), 1.0, {"a": 900.25})
    assert sums.as_of({"a": 900.25}).observations("a") == pytest.approx(1.0)
    assert sums.as_of({"a": 902.25}).observations("a") == pytest.approx(0.25)
    assert sums.as_of({"a": 902.25}).usage("a")[Usage.COST_USD] == pytest.approx(0.125)


def test_many_outcomes_count_no_more_than_the_limit() -> None:
    """So that live labels can outgrow them; few count their weight."""
    lines = [logged(number, a=(1.0, None), b=(None, 0.1)) for number in range(1_000)]
    assert prior_weight(lines, 0.1, 50.0) == 0.05
    assert prior_weight(lines[:100], 0.1, 50.0) == 0.1
    assert prior_weight([logged(0, a=(None, 0.1))], 0.1, 50.0) == 0.1


@pytest.mark.parametrize(
    ("weight", "limit"), [(0, 1), (1.1, 1), (-1, 1), (np.nan, 1), (1, 0), (1, np.inf), (1, np.nan)]
)
def test_refuses_amounts_that_mean_nothing(weight: float, limit: float) -> None:
    """Weights are in (0, 1], limits positive and finite."""
    with pytest.raises(ValueError, match=r"counts more than 0|must be positive"):
        prior_weight([], weight, limit)


def test_reads_what_replay_reads_and_incomplete_lines_as_well(tmp_path: Path) -> None:
    """Plain or gzip'd; the first of a repeated query_id counts, other fields are ignored."""
    rows = [
        {"query_id": "1", "text": "x", "outcomes": {"a": {"quality": 1}}, "label": "yes"},
        {"query_id": "2", "text": "y", "outcomes": {"b": {"quality": 0, "cost": 0.1}}},
        {"query_id": "1", "text": "z", "outcomes": {"a": {"quality": 0}}},
    ]
    raw = "\n".join(map(json.dumps, rows)).encode()
    plain, packed, empty = tmp_path / "plain", tmp_path / "packed", tmp_path / "empty"
    plain.write_bytes(raw)
    packed.write_bytes(gzip.compress(raw))
    empty.write_bytes(b"\n")
    assert [line.text for line in read_logged(plain)] == ["x", "y"]
    assert read_logged(plain) == read_logged(packed)
    with pytest.raises(InvalidEvent, match="empty: there is no query"):
        read_logged(empty)
    plain.write_text('{"query_id": "1", "text": "x", "outcomes": {"a": {"quality": 2}}}')
    with pytest.raises(InvalidEvent, match=r"line 1: outcomes\.a\.quality"):
        read_logged(plain)


class World:
    """Three arms of which each is best somewhere, and `c` most often."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.weights = self.rng.normal(size=(8, 3))

    def draw(self, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Contexts `(n, 8)` and what the arms bring, 0 or 1, `(n, 3)`."""
        contexts = self.rng.normal(size=(n, 8))
        contexts /= np.linalg.norm(contexts, axis=1, keepdims=True)
        chance = 1 / (1 + np.exp(-(np.array([0.2, 0.8, 1.4]) + 2 * contexts @ self.weights)))
        return contexts, (self.rng.random((n, 3)) < chance).astype(np.float64)


def mean_utilities(n: int, part: slice, seeds: range) -> dict[str, float]:
    """Of a part of streams of n queries, from a cold start, a right prior and a wrong one."""
    found: dict[str, list[NDArray[np.float64]]] = {"cold": [], "right": [], "wrong": []}
    for seed in seeds:
        world = World(seed)
        contexts, outcomes = world.draw(300)
        stream, utilities = world.draw(n)
        for name, columns in (("cold", None), ("right", (0, 1, 2)), ("wrong", (2, 1, 0))):
            start = None
            if columns is not None:
                lines = [
                    logged(i, **{arm: (row[c], None) for arm, c in zip(ARMS, columns, strict=True)})
                    for i, row in enumerate(outcomes)
                ]
                start = prior(lines, contexts, prior_weight(lines, 0.1, 50.0))
            rng = np.random.default_rng(seed)
            got = utilities_from(start, stream, utilities, ARMS, rng=rng, refresh=50)
            found[name].append(got[part])
    return {name: float(np.mean(runs)) for name, runs in found.items()}


def test_a_right_prior_helps_at_once_and_a_wrong_one_costs_at_first() -> None:
    """Means of the first 200 queries of 24 streams; single streams differ by more."""
    first = mean_utilities(200, slice(None), range(24))
    assert first["right"] > first["cold"] + 0.02
    assert first["wrong"] < first["cold"] - 0.02


def test_a_wrong_prior_is_outgrown() -> None:
    """Means of the last 1,500 of 5,000 queries of four streams."""
    last = mean_utilities(5_000, slice(-1_500, None), range(4))
    assert abs(last["wrong"] - last["cold"]) < 0.01
    assert last["right"] > last["cold"] - 0.01
