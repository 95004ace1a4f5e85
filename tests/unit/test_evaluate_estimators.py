"""Each estimator on small logs worked out by hand, on known truth, and where there is nothing."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from benchmarks.synthetic_logs import LOGGERS, simulate
from metallm_stream.evaluate import BanditLog, Estimate, PolicyEvaluation
from metallm_stream.evaluate.anytime import COSTS, RATES, TRUNCATION, AnytimeDoublyRobust
from metallm_stream.evaluate.overlap import Overlap


def log(n: int = 4, **changed: Any) -> BanditLog:
    """Decisions among two arms by turns, each drawn with 1/2; the target always chooses the first.

    The first arm brings 1, the second 0; 0.5 is expected of both.
    """
    chosen = np.arange(n) % 2
    known = {
        "chosen": chosen,
        "propensity": np.full(n, 0.5),
        "reward": 1.0 - chosen,
        "probabilities": np.full((n, 2), 0.5),
        "predicted": np.full((n, 2), 0.5),
        "target": np.tile([1.0, 0.0], (n, 1)),
    }
    return BanditLog(**(known | changed))


def rows(n: int) -> BanditLog:
    """The first rows of a log of one row or none."""
    whole = log(2)
    return BanditLog(**{field.name: getattr(whole, field.name)[:n] for field in fields(whole)})


def estimates(*pieces: BanditLog, bounds: tuple[float, float] | None = (0, 1)) -> dict[str, Any]:
    """Every estimator's word by name."""
    evaluation = PolicyEvaluation("target", bounds)
    for piece in pieces:
        evaluation.add(piece)
    return {estimate.estimator: estimate for estimate in evaluation.value().estimates}


def test_estimates_of_four_decisions_by_hand() -> None:
    """Weights 2, 0, 2, 0: weighted rewards 2, 0, 2, 0; scores 1.5, 0.5, 1.5, 0.5."""
    found = estimates(log())
    half = 1.959963984540054 * math.sqrt(4 / 3 / 4)
    assert (found["ips"].value, found["snips"].value, found["dr"].value) == (1.0, 1.0, 1.0)
    assert found["ips"].low == pytest.approx(1 - half)
    assert found["ips"].high == pytest.approx(1 + half)
    assert (found["snips"].low, found["snips"].high) == pytest.approx((1.0, 1.0))
    assert found["dr"].high == pytest.approx(1 + half / 2)


def test_snips_variance_by_hand() -> None:
    """Rewards 1 and 0 at weights 2: the ratio's error is sqrt(4/4 + 4/4) / 4."""
    found = estimates(log(reward=np.array([1.0, 0, 0, 0])))["snips"]
    assert found.value == 0.5
    assert found.high - found.value == pytest.approx(1.959963984540054 * math.sqrt(2) / 4)


def test_weighted_scores_count_more_where_the_propensity_is_high() -> None:
    """Two hundred decisions at propensity 1/10, then as many at 9/10: these count three-fold."""
    rare = log(
        200,
        propensity=np.full(200, 0.1),
        probabilities=np.tile([0.1, 0.9], (200, 1)),
        chosen=np.zeros(200, dtype=np.int64),
        reward=np.full(200, 0.5),
    )
    common = replace(
        rare,
        propensity=np.full(200, 0.9),
        probabilities=np.tile([0.9, 0.1], (200, 1)),
        reward=np.full(200, 0.95),
    )
    found = estimates(rare, common)
    late = 0.5 + 0.45 / 0.9
    assert found["dr"].value == pytest.approx((0.5 + late) / 2)
    assert 0.5 + 0.6 * (late - 0.5) < found["dr_weighted"].value < 0.5 + 0.8 * (late - 0.5)


def test_the_anytime_lower_end_pays_for_time_and_spread() -> None:
    """It shrinks with the number of decisions, and is below what any single rate would give."""
    few, many = estimates(log(100))["dr_anytime"], estimates(log(10_000))["dr_anytime"]
    assert 0 < few.low < few.value == few.high == 1.0
    assert 0.9 < many.low < many.value == pytest.approx(1.0)
    single = ((math.log(24 / 0.025) + COSTS * _spread(100)) / RATES).min() * (TRUNCATION + 1) / 100
    assert few.value - few.low < single
    assert few.value - few.low > 5 * (many.value - many.low)


def _spread(n: int) -> float:
    """Squared surprises of the lower scores of `log(n)`, one by one."""
    scores = log(n).scores / (TRUNCATION + 1)
    total, spread = 0.0, 0.0
    for t, score in enumerate(scores):
        predicted = min(max((0.5 / (TRUNCATION + 1) + total) / (1 + t), 0.0), 1 / (TRUNCATION + 1))
        spread += (score - predicted) ** 2
        total += score
    return spread


def test_a_reward_out_of_range_leaves_no_anytime_interval() -> None:
    """The note says which; the others do not mind."""
    found = estimates(log(reward=np.array([1.0, 0, 1.5, 0])))
    note = "a reward of 1.5 lies outside 0 to 1: take a metric or a scale that keeps all within"
    assert found["dr_anytime"] == Estimate("dr_anytime", note=note)
    assert found["ips"].low is not None
    assert "dr_anytime" not in estimates(log(), bounds=None)


def test_the_anytime_value_lies_inside_its_interval() -> None:
    """Where the scores' mean is above all that is possible, and where it is below."""
    lucky = log(50, chosen=np.zeros(50, dtype=np.int64), reward=np.ones(50))
    for pieces, end in (((lucky,), 1.0), ((replace(lucky, reward=np.zeros(50)),), 0.0)):
        found = estimates(*pieces)
        assert not 0 <= found["dr"].value <= 1
        anytime = found["dr_anytime"]
        assert anytime.low <= anytime.value <= anytime.high
        assert anytime.value == end


def test_anytime_ends_that_have_crossed_leave_no_interval() -> None:
    """Ten thousand draws of a half, all the same arm, all the best: no chance does that."""
    n = 10_000
    found = estimates(log(n, chosen=np.zeros(n, dtype=np.int64), reward=np.ones(n)))["dr_anytime"]
    assert (found.value, found.low, found.high) == (None, None, None)
    assert "crossed" in found.note


@pytest.mark.parametrize("bounds", [(0.0, math.inf), (math.nan, 1.0), (1.0, 1.0)])
def test_an_anytime_interval_needs_a_range(bounds: tuple[float, float]) -> None:
    """Of finite ends, the lower below the upper."""
    with pytest.raises(ValueError, match="finite ends"):
        AnytimeDoublyRobust(*bounds)


def test_other_ranges_are_scaled() -> None:
    """Rewards from -1 to 1 have the interval of those from 0 to 1, stretched."""
    plain = estimates(log(400))["dr_anytime"]
    wide = log(400, reward=2 * log(400).reward - 1, predicted=np.zeros((400, 2)))
    scaled = estimates(wide, bounds=(-1, 1))["dr_anytime"]
    assert scaled.low == pytest.approx(2 * plain.low - 1)
    assert scaled.high == pytest.approx(2 * plain.high - 1)


def test_no_decisions_have_no_value() -> None:
    """Neither a number nor an error, and a note that says so."""
    for found in (estimates(), estimates(rows(0))):
        assert {(one.value, one.low, one.high) for one in found.values()} == {(None, None, None)}
        assert {one.note for one in found.values()} == {"no decisions"}


def test_one_decision_has_a_value_and_no_interval() -> None:
    """But for the anytime-valid one, whose interval is all that is possible."""
    found = estimates(rows(1))
    for name in ("ips", "snips", "dr", "dr_weighted"):
        assert found[name].value is not None
        assert (found[name].low, found[name].high) == (None, None)
        assert found[name].note == "one decision has no spread"
    assert (found["dr_anytime"].low, found["dr_anytime"].high) == (0.0, 1.0)


def test_a_log_without_any_choice_of_the_target() -> None:
    """All weights 0: nothing for snips; the model's word alone for the doubly robust ones."""
    never = log(4, chosen=np.ones(4, dtype=np.int64), reward=np.ones(4))
    found = estimates(never)
    assert found["snips"].value is None
    assert found["snips"].note == "no decision that the target would have made"
    assert (found["ips"].value, found["dr"].value) == (0.0, 0.5)
    overlap = Overlap()
    overlap.add(never)
    assert (overlap.effective_decisions, overlap.largest_weight) == (0.0, 0.0)
    for anytime, trusted in ((True, "no interval but dr_anytime"), (False, "no interval")):
        said = f"only 0 effective decisions: {trusted} can be trusted"
        assert overlap.notes(anytime=anytime) == (said,)


def test_overlap_tells_of_few_heavy_and_impossible_choices() -> None:
    """Effective decisions by hand, one weight that outweighs the rest, and propensity 0."""
    overlap = Overlap()
    overlap.add(log(1_000))
    assert (overlap.decisions, overlap.effective_decisions) == (1_000, 500.0)
    assert (overlap.largest_weight, overlap.unsupported) == (2.0, 0.0)
    assert overlap.notes(anytime=True) == ()
    heavy = log(
        2,
        chosen=np.zeros(2, dtype=np.int64),
        propensity=np.array([0.016, 1.0]),
        probabilities=np.array([[0.016, 0.984], [1.0, 0.0]]),
    )
    overlap.add(heavy)
    (note,) = overlap.notes(anytime=True)
    assert note.startswith("one decision has 6% of all weight")
    impossible = Overlap()
    impossible.add(replace(log(400), **_impossible(400)))
    assert impossible.unsupported == 1.0
    assert impossible.notes(anytime=True)[0].startswith("100.0% of its choices had probability 0")


def test_overlap_tells_of_choices_that_were_too_rare_to_be_seen() -> None:
    """Half of the decisions made such a choice with a probability of 1e-5, and never took it."""
    overlap = Overlap()
    overlap.add(log(1_000))
    rare = {
        "chosen": np.ones(1_000, dtype=np.int64),
        "propensity": np.full(1_000, 1 - 1e-5),
        "probabilities": np.tile([1e-5, 1 - 1e-5], (1_000, 1)),
    }
    assert overlap.lacking == 0.0
    overlap.add(log(1_000, **rare))
    assert (overlap.effective_decisions, overlap.unsupported) == (500.0, 0.0)
    (note,) = overlap.notes(anytime=True)
    assert note.startswith("the log says nearly nothing about 50% of its choices")


def test_choices_that_were_impossible_are_told_of_once() -> None:
    """Not a second time as of tiny probability."""
    overlap = Overlap()
    overlap.add(log(1_000))
    impossible = {
        "chosen": np.ones(200, dtype=np.int64),
        "propensity": np.ones(200),
        "probabilities": np.tile([0.0, 1.0], (200, 1)),
    }
    overlap.add(log(200, **impossible))
    (note,) = overlap.notes(anytime=True)
    assert note.startswith("16.7% of its choices had probability 0 in the log")


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_a_value_that_hardly_anything_speaks_against_is_noted(bound: float) -> None:
    """Fewer than ten of 500 effective decisions with another reward than 0 or 1."""
    end = f"effective decisions speak against a value of {bound:g}: no interval but dr_anytime can"
    for others, said in ((0, f"only 0.0 {end}"), (9, f"only 9.0 {end}"), (10, None)):
        reward = np.full(1_000, bound)
        reward[: 2 * others] = 1 - bound
        notes = _notes(log(1_000, reward=reward))
        assert notes == (() if said is None else (f"{said} be trusted",))


def test_a_spread_of_rounding_alone_is_noted() -> None:
    """Whether the rewards are bounded or not, unless there are few effective decisions anyway."""
    same = {"reward": np.full(1_000, 0.3)}
    assert _notes(log(1_000, **same)) == (
        "every decision that counts brought 0.3: no interval but dr_anytime can be trusted",
    )
    assert _notes(log(1_000, **same), bounds=None) == (
        "every decision that counts brought 0.3: no interval can be trusted",
    )
    assert _notes(log(1_000, reward=np.linspace(0, 1, 1_000)), bounds=None) == ()
    (few,) = _notes(log(4))
    assert few.startswith("only 2 effective decisions: ")


def _notes(piece: BanditLog, bounds: tuple[float, float] | None = (0, 1)) -> tuple[str, ...]:
    evaluation = PolicyEvaluation("target", bounds)
    evaluation.add(piece)
    return evaluation.value().notes


def _impossible(n: int) -> dict[str, Any]:
    return {
        "chosen": np.ones(n, dtype=np.int64),
        "propensity": np.ones(n),
        "probabilities": np.tile([0.0, 1.0], (n, 1)),
    }


def test_the_anytime_interval_allows_for_impossible_choices() -> None:
    """Without any overlap it is everything that is possible."""
    found = estimates(replace(log(10_000), **_impossible(10_000)))["dr_anytime"]
    assert (found.low, found.high) == (0.0, 1.0)


@pytest.mark.parametrize("logger", LOGGERS)
def test_estimators_are_unbiased_on_known_truth(logger: str) -> None:
    """The mean error over 200 logs is within four standard errors of 0; snips' nearly so."""
    success = np.array([[0.9, 0.6, 0.5], [0.5, 0.6, 0.8]])
    rng = np.random.default_rng(7)
    logs = simulate(success, LOGGERS[logger], decisions=200, logs=200, rng=rng)
    for aim in logs.aims().values():
        errors: dict[str, list[float]] = {}
        for r in range(200):
            for name, found in estimates(logs.log(r, aim)).items():
                errors.setdefault(name, []).append(found.value - aim.truth[r, -1])
        for name, found in errors.items():
            standard_error = np.std(found) / math.sqrt(len(found))
            slack = 0.005 if name == "snips" else 0.0
            assert abs(np.mean(found)) < 4 * standard_error + slack, (name, logger)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("propensity", [0.5, 0.0, 0.5, 0.5], r"propensity of row 1 is 0\.0.*\(0, 1\]"),
        ("propensity", [0.5, 0.5, 1.5, 0.5], r"propensity of row 2 is 1\.5"),
        ("propensity", [math.nan, 0.5, 0.5, 0.5], "propensity of row 0 is nan"),
        ("propensity", [0.5, 0.4, 0.5, 0.5], "propensity of row 1 is 0.4.*own probability"),
        ("reward", [1.0, math.inf, 0, 0], "reward of row 1 is inf.*finite"),
        ("chosen", [0, 1, 2, 0], "chosen of row 2 is 2.*below 2"),
        ("chosen", [0, 1], r"chosen: expected 4 values.*\(2,\)"),
        ("predicted", np.zeros((4, 3)), r"predicted: expected shape \(4, 2\)"),
        ("predicted", np.full((4, 2), np.nan), "predicted of row 0"),
        ("target", np.full((4, 2), 0.4), r"target of row 0.*add up to 1"),
        ("target", np.tile([1.5, -0.5], (4, 1)), r"target of row 0.*\[0, 1\]"),
        ("probabilities", np.full((4, 2), 0.6), "probabilities of row 0.*add up to 1"),
    ],
)
def test_a_log_that_cannot_be_is_refused(field: str, value: Any, said: str) -> None:
    """The field, the row and the value are named."""
    with pytest.raises(ValueError, match=said):
        log(**{field: np.asarray(value)})
