"""Stored decisions as arrays: what counts for which metric, and what each target would do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from metallm_stream.cli.moments import moment
from metallm_stream.errors import InvalidEvent
from metallm_stream.evaluate import METRICS, Decisions, LogEvaluation, Logged
from metallm_stream.evaluate.decisions import Seen
from metallm_stream.evaluate.targets import probabilities

NOW = datetime(2026, 3, 8, 12, tzinfo=UTC)
MINI: Seen = {
    "arm": "mini", "probability": 0.75, "quality": 0.6, "cost_usd": 0.001, "utility": 0.59,
}  # fmt: skip
LARGE: Seen = {
    "arm": "large", "probability": 0.25, "quality": 0.9, "cost_usd": 0.01, "utility": 0.8,
}  # fmt: skip
ROW = Logged(
    query_id="q",
    arm="mini",
    propensity=0.75,
    candidates=(MINI, LARGE),
    quality=1.0,
    cost_usd=0.002,
    latency_s=5.0,
    cost_weight=0.1,
    latency_weight=0.2,
    cost_scale_usd=0.01,
    latency_scale_s=10.0,
)
ALONE = replace(
    ROW, arm="large", propensity=1.0, candidates=({"arm": "large", "probability": 1.0},)
)


def test_utility_is_quality_less_weighted_cost_and_latency() -> None:
    """By the query's own weights and scales."""
    assert ROW.utility == pytest.approx(1 - 0.1 * 0.2 - 0.2 * 0.5)


def test_utility_is_unknown_where_a_part_is_that_counts() -> None:
    """A weight of 0 makes the amount not matter."""
    assert replace(ROW, quality=None).utility is None
    assert replace(ROW, cost_usd=None).utility is None
    assert replace(ROW, cost_usd=None, cost_weight=0).utility == pytest.approx(0.9)
    assert replace(ROW, latency_s=None).utility is None
    assert replace(ROW, latency_s=None, latency_weight=0).utility == pytest.approx(0.98)


def test_columns_are_the_arms_that_were_allowed_anywhere() -> None:
    """A row without an arm has probability 0 and no prediction there."""
    found = Decisions.of([ROW, ALONE])
    assert found.arms == ("mini", "large")
    assert found.chosen.tolist() == [0, 1]
    assert found.probabilities.tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert found.allowed.tolist() == [[True, True], [False, True]]
    quality = found.expected["quality"]
    assert quality[0].tolist() == [0.6, 0.9]
    assert np.isnan(quality[1]).all()


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("logged", [[0.75, 0.25], [0, 1]]),
        ("greedy", [[0, 1], [0, 1]]),
        ("uniform", [[0.5, 0.5], [0, 1]]),
        ("always:mini", [[1, 0], [0, 0]]),
        ("always:large", [[0, 1], [0, 1]]),
        ("always:unknown", [[0, 0], [0, 0]]),
    ],
)
def test_targets_choose_among_allowed_arms(target: str, wanted: list[list[float]]) -> None:
    """Rows in which the one arm was not allowed are 0 and will not count."""
    assert probabilities(target, Decisions.of([ROW, ALONE])).tolist() == wanted


def test_equal_utilities_share_and_no_policy_is_uniform() -> None:
    """Whatever the order of the arms."""
    tied = replace(ROW, candidates=(MINI, {**LARGE, "utility": 0.59}))
    unlearned = replace(ROW, candidates=tuple({**one, "utility": None} for one in ROW.candidates))
    shares = probabilities("greedy", Decisions.of([tied, unlearned]))
    assert shares.tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_an_unknown_target_is_named() -> None:
    """With those that there are."""
    with pytest.raises(ValueError, match="no policy 'best': logged, greedy, uniform or always:ARM"):
        probabilities("best", Decisions.of([ROW]))


@pytest.mark.parametrize(
    ("metric", "reward", "predicted"),
    [
        ("utility", 0.88, [0.59, 0.8]),
        ("quality", 1.0, [0.6, 0.9]),
        ("cost", 0.002, [0.001, 0.01]),
        ("latency", 5.0, [0.0, 0.0]),
    ],
)
def test_a_metric_has_its_outcome_and_prediction(
    metric: str, reward: float, predicted: list[float]
) -> None:
    """What was not predicted counts as predicted 0."""
    decisions = Decisions.of([ROW, replace(ROW, quality=None, cost_usd=None, latency_s=None)])
    log = METRICS[metric].measure(decisions).log(probabilities("uniform", decisions))
    assert log.reward == pytest.approx([reward])
    assert log.predicted.tolist() == [predicted]
    assert log.weights == pytest.approx([0.5 / 0.75])


def test_an_expected_quality_is_taken_as_one_that_can_be() -> None:
    """Early predictions go far beyond 0 and 1, and intervals would grow with them."""
    wild = ({**MINI, "quality": 5.2}, {**LARGE, "quality": -4.6})
    decisions = Decisions.of([replace(ROW, candidates=wild)])
    assert METRICS["quality"].measure(decisions).predicted.tolist() == [[1.0, 0.0]]
    utility = METRICS["utility"].measure(decisions).predicted
    assert utility == pytest.approx(np.array([[1 - 0.01, 0 - 0.1]]))


def test_the_price_of_budgets_is_in_no_predicted_utility() -> None:
    """It is the quality less the weighted cost and latency, as far as they are known."""
    large = {**LARGE, "utility": 0.8 - 1_000.0}
    unpriced = {**MINI, "cost_usd": None, "utility": -50.0}
    priced = replace(ROW, candidates=({**MINI, "utility": 0.59 - 100}, large))
    guessed = replace(priced, candidates=(unpriced, large))
    timed = replace(priced, candidates=({**unpriced, "latency_s": 2.0}, large))
    decisions = Decisions.of([priced, guessed, timed])
    predicted = METRICS["utility"].measure(decisions).predicted
    assert predicted == pytest.approx(np.array([[0.59, 0.8], [0.6, 0.8], [0.56, 0.8]]))
    assert priced.utility == ROW.utility


def made_under(budget_weight: float) -> Decisions:
    """A thousand decisions whose logged utilities have the price of a budget."""
    rng = np.random.default_rng(7)
    rows = []
    for i in range(1_000):
        drawn, price = int(rng.random() < 0.25), budget_weight / 0.01
        costs = rng.uniform(0.001, 0.01, size=2)
        seen = [
            {**one, "cost_usd": cost, "utility": one["quality"] - (0.1 / 0.01 + price) * cost}
            for one, cost in zip(({**MINI}, {**LARGE}), costs.tolist(), strict=True)
        ]
        rows.append(
            replace(
                ROW,
                query_id=f"q{i}",
                arm=("mini", "large")[drawn],
                propensity=(0.75, 0.25)[drawn],
                candidates=tuple(seen),
                quality=float(rng.random() < (0.6, 0.9)[drawn]),
                cost_usd=float(costs[drawn]),
            )
        )
    return Decisions.of(rows)


@pytest.mark.parametrize("target", ["always:large", "uniform", "logged"])
def test_doubly_robust_intervals_are_as_narrow_under_a_dear_budget(target: str) -> None:
    """A price of 1,000 in the logged utilities changes neither value nor width."""
    found = []
    for budget_weight in (0.0, 1_000.0):
        evaluation = LogEvaluation("utility", target)
        evaluation.add(made_under(budget_weight))
        (value,) = evaluation.values()
        found.append({one.estimator: (one.value, one.low, one.high) for one in value.estimates})
    free, dear = found
    for estimator in ("dr", "dr_weighted", "dr_anytime"):
        assert dear[estimator] == pytest.approx(free[estimator], rel=1e-6)
    _, low, high = dear["dr"]
    assert 0 < high - low < 0.3


def test_rows_count_for_always_an_arm_where_it_was_allowed() -> None:
    """Two for large, one for mini; each target says how many."""
    evaluation = LogEvaluation("quality")
    evaluation.add(Decisions.of([ROW]))
    evaluation.add(Decisions.of([ALONE]))
    counts = {value.target: value.decisions for value in evaluation.values()}
    assert counts == {
        "greedy": 2, "logged": 2, "uniform": 2, "always:large": 2, "always:mini": 1,
    }  # fmt: skip
    assert evaluation.arms == ("large", "mini")


def by_turns(**of_mini: float | None) -> Decisions:
    """Two arms by turns, each drawn with 1/2: large is right half of the time, for a known cost."""
    rows = []
    for n in range(800):
        arm = ("mini", "large")[n % 2]
        candidates: tuple[Seen, ...] = tuple({**one, "probability": 0.5} for one in (MINI, LARGE))
        row = replace(ROW, arm=arm, propensity=0.5, candidates=candidates, quality=n // 2 % 2)
        rows.append(replace(row, **of_mini) if arm == "mini" else row)
    return Decisions.of(rows)


@pytest.mark.parametrize("metric", ["utility", "cost"])
def test_an_arm_of_unknown_cost_is_told_wherever_it_is_left_out(metric: str) -> None:
    """What is left was chosen by its arm: weights count it twice, and no interval is right."""
    evaluation = LogEvaluation(metric, "always:large")
    evaluation.add(by_turns(cost_usd=None))
    (value,) = evaluation.values()
    ips = value.estimates[0]
    reward = METRICS[metric].reward(by_turns().rows[1]), METRICS[metric].reward(by_turns().rows[3])
    truth = sum(each or 0.0 for each in reward) / 2
    assert ips.value == pytest.approx(2 * truth)
    assert value.effective_decisions == 400
    assert value.notes[0] == (
        "decisions of unknown cost are left out (400 of 400 of mini): no interval can be trusted"
    )


@pytest.mark.parametrize(
    ("metric", "of_mini"),
    [("utility", {}), ("quality", {"cost_usd": None}), ("utility", {"quality": None})],
)
def test_known_costs_and_missing_labels_are_no_matter_of_that_note(
    metric: str, of_mini: dict[str, float | None]
) -> None:
    """Labels are assumed to be missing at random; quality counts whatever it cost."""
    evaluation = LogEvaluation(metric, "always:large")
    evaluation.add(by_turns(**of_mini))
    (value,) = evaluation.values()
    assert not any("unknown cost" in note for note in value.notes)


def test_unbounded_metrics_have_no_anytime_interval() -> None:
    """Costs and latencies have no upper end to rely on."""
    for name, metric in METRICS.items():
        evaluation = LogEvaluation(name, "logged")
        evaluation.add(Decisions.of([ROW, ROW]))
        (value,) = evaluation.values()
        last = value.estimates[-1].estimator
        assert (
            (last == "dr_anytime")
            == (metric.bounds is not None)
            == (name in ("utility", "quality"))
        )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (replace(ROW, propensity=0.0), r"'q': propensity 0\.0 not in \(0, 1\]"),
        (replace(ROW, propensity=1.2), r"'q': propensity 1\.2 not in"),
        (replace(ROW, propensity=float("nan")), "'q': propensity nan not in"),
        (replace(ROW, propensity=0.5), r"propensity 0\.5, but arm 'mini' has probability 0\.75"),
        (replace(ROW, candidates=(MINI,)), r"probability 0\.75 of 0\.75 in all"),
        (replace(ROW, arm="huge"), "arm 'huge' is not a candidate"),
    ],
)
def test_a_decision_that_cannot_be_is_refused(row: Logged, said: str) -> None:
    """The query and the number are named."""
    with pytest.raises(InvalidEvent, match=said):
        Decisions.of([ROW, row])


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("90m", "2026-03-08T10:30:00+00:00"),
        ("12h", "2026-03-08T00:00:00+00:00"),
        ("7d", "2026-03-01T12:00:00+00:00"),
        ("1w", "2026-03-01T12:00:00+00:00"),
        ("2026-03-01", "2026-03-01T00:00:00+00:00"),
        ("2026-03-01T12:00:00+02:00", "2026-03-01T12:00:00+02:00"),
    ],
)
def test_moments_are_dates_or_durations(said: str, meant: str) -> None:
    """Without a zone they are UTC."""
    assert moment(said, NOW).isoformat() == meant


@pytest.mark.parametrize("said", ["", "7", "7y", "-7d", "soon", "2026-13-01", "9" * 30 + "d"])
def test_what_is_no_moment_is_refused(said: str) -> None:
    """Whether misspelt, out of the calendar or before all time."""
    with pytest.raises((ValueError, OverflowError)):
        moment(said, NOW)
