"""The rules of choice in figures."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from metallm_stream.policy import (
    Beliefs,
    Chooser,
    EpsilonGreedy,
    InverseGap,
    LinUcb,
    SoftElimination,
    Thompson,
)
from metallm_stream.policy.chooser import best
from metallm_stream.policy.patience import patience, patiently


def beliefs(
    utilities: list[float], uncertainty: float | list[float], events: float = 100.0
) -> Beliefs:
    """About one query, with a noise of 0.2 and so many events of each arm."""
    k = len(utilities)
    wide = np.broadcast_to(np.asarray(uncertainty, float), (1, k))
    return Beliefs(tuple("abcdefghijkl"[:k]), np.array([utilities]), wide, np.full(k, events), 0.2)


def everything(known: Beliefs) -> np.ndarray:
    """All arms allowed."""
    return np.ones(known.utility.shape, bool)


def test_elimination_weighs_as_its_formula_says() -> None:
    """`exp(−(gap²/2v)^steepness)` with `v = σ²·u·√s` and `s = ln(T·u/K) / ln(T/K)`."""
    known = beliefs([0.9, 0.7, 0.65], [0.01, 0.05, 0.2])
    expected = [1.0]
    for gap, u in ((0.2, 0.05), (0.25, 0.2)):
        schedule = math.log(6_000 * u / 3) / math.log(6_000 / 3)
        variance = 0.2 * u * math.sqrt(schedule)
        expected.append(math.exp(-((gap**2 / (2 * variance)) ** 1.5)))
    found = SoftElimination(horizon=6_000, floor=0.0).probabilities(known, everything(known))
    assert found[0] == pytest.approx(np.array(expected) / sum(expected))


def test_elimination_gives_a_worse_arm_less_the_more_is_known() -> None:
    """With the same gap and ever more events the share falls to its part of the floor."""
    shares = []
    for events in (1, 3, 10, 30, 100, 300, 1_000, 10_000):
        known = beliefs([0.9, 0.8], 1 / events, events)
        shares.append(float(SoftElimination().probabilities(known, everything(known))[0, 1]))
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.45
    assert shares[-1] == pytest.approx(0.005 / 2)


def test_elimination_gives_up_an_arm_that_has_been_tried_enough() -> None:
    """With `u < K/T` what would still be learned of an arm that is behind pays no longer."""
    rule = SoftElimination(horizon=4_000)
    for u, explored in ((2 / 4_001, False), (2 / 400, True)):
        known = beliefs([0.9, 0.89], u, 10.0)
        share = float(rule.probabilities(known, everything(known))[0, 1])
        assert (share > 0.1) == explored
        assert explored or share == pytest.approx(0.005 / 2)


def test_eliminations_horizon_grows_with_the_stream() -> None:
    """What is close goes on being compared while events come beyond the horizon."""
    known = [beliefs([0.9, 0.895], 1 / 6_000, events) for events in (100.0, 1e6)]
    short, long = (SoftElimination().probabilities(each, everything(each))[0, 1] for each in known)
    assert short == pytest.approx(0.005 / 2)
    assert long > 0.1


@pytest.mark.parametrize("share", [1.0, 1 / 501, 1 / 1_000_001])
def test_elimination_goes_on_while_labels_are_merely_late(share: float) -> None:
    """However many calls wait for labels, arms without any are not given up for their cost."""
    known = replace(beliefs([0.485, 0.41], 0.13, events=0.0), label_share=share)
    assert SoftElimination().probabilities(known, everything(known))[0, 1] > 0.25


def unjudged(calls: float, labels: float = 0.0) -> np.ndarray:
    """Probabilities of two judged arms, and of one that looks better and was called so often."""
    known = beliefs([0.8, 0.7, 0.9], [1e-4, 1e-4, 0.1])
    known = replace(
        known,
        observations=np.array([10_000.0, 10_000.0, labels]),
        calls=np.array([20_000.0, 20_000.0, calls]),
        label_share=0.5,
    )
    found: np.ndarray = SoftElimination().probabilities(known, everything(known))[0]
    assert found.sum() == pytest.approx(1.0)
    assert found.min() > 0.0016  # the floor, evenly
    return found


def test_elimination_waits_for_labels_that_are_due_but_not_for_ever() -> None:
    """Of an arm that is never judged an ever smaller part is left: `10 / L` of its weight."""
    assert unjudged(calls=10)[2] > 0.99
    for calls in (100, 1_000, 100_000):
        part = 10 / (0.5 * (calls + 1))
        left = 0.995 * part / (1 + part)
        assert unjudged(calls)[2] == pytest.approx(left + 0.005 / 3, rel=1e-6)
    assert unjudged(100_000)[2] < unjudged(1_000)[2] < unjudged(100)[2] < 0.2


def test_an_arm_whose_labels_have_come_keeps_its_weight_however_many_are_due() -> None:
    """Ten say enough; fewer make it be waited for longer."""
    assert unjudged(100_000, labels=10)[2] > 0.99
    assert unjudged(1_000, labels=9)[2] > 0.99
    assert unjudged(1_000, labels=1)[2] > 1.5 * unjudged(1_000)[2]


@pytest.mark.parametrize(
    "rule",
    [
        InverseGap(floor=0.0),
        LinUcb(floor=0.0),
        EpsilonGreedy(scale=0.0, floor=0.0),
        Thompson(floor=0.0),
    ],
    ids=lambda rule: str(rule.name),
)
def test_other_rules_wait_as_long(rule: Chooser) -> None:
    """An arm keeps so much of what they give it; where it is not thought of, the others do."""
    known = beliefs([0.8, 0.7, 0.9], [1e-4, 1e-4, 0.1])
    known = replace(known, observations=np.array([500.0, 500.0, 0.0]), label_share=0.5)
    alone = np.array([[True, True, False]])
    usual, without = (rule.probabilities(known, each)[0] for each in (everything(known), alone))
    for calls, part in ((10.0, 1.0), (999.0, 10 / 500), (99_999.0, 10 / 50_000)):
        called = replace(known, calls=np.array([1_000.0, 1_000.0, calls]))
        found = rule.probabilities(called, everything(called))[0]
        assert found == pytest.approx(part * usual + (1 - part) * without)
        pays = replace(called, headroom=np.array([[0.2, 0.3, 1.0]]))  # it brings 0.9 at least
        assert rule.probabilities(pays, everything(pays))[0] == pytest.approx(usual)


def test_many_arms_that_are_waited_for_share_what_one_would_keep() -> None:
    """And a new arm beside them, whose labels are not overdue, is left alone."""
    known = replace(
        beliefs([0.8] * 5, 0.1),
        observations=np.array([1_000.0, 0.0, 0.0, 0.0, 0.0]),
        calls=np.array([2_000.0, 1e6, 1e6, 1e6, 10.0]),
        label_share=0.5,
    )
    alone = 10 / (0.5 * (1e6 + 1))
    assert patience(known) == pytest.approx([1.0, *[alone / 3] * 3, 1.0], rel=1e-3)
    assert patience(known)[[0, 4]].tolist() == [1.0, 1.0]


def test_a_rule_is_not_asked_for_each_arm_that_is_waited_for() -> None:
    """Those that keep about as much are thought of together, and keep as much together."""
    known = replace(
        beliefs([0.5] + [0.9] * 11, 0.1),
        observations=np.array([1_000.0] + [0.0] * 11),
        calls=np.array([2_000.0, *np.linspace(1_000.0, 1_200.0, 11)]),
        label_share=0.5,
    )
    asked: list[int] = []

    def greedy(some: np.ndarray) -> np.ndarray:
        asked.append(int(some.sum()))
        return best(known.utility, some)

    found = patiently(known, everything(known), greedy)[0]
    assert asked == [12, 1]
    assert found[1:] == pytest.approx([patience(known)[1:].mean() / 11] * 11)
    assert found.sum() == pytest.approx(1.0)


def test_an_arm_that_pays_even_if_its_answers_are_worthless_is_used_though_nobody_judges_it() -> (
    None
):
    """Where money weighs that much, what is known to be worse is not preferred to it."""
    known = replace(
        beliefs([-1.0, 0.6], [1e-4, 0.1]),
        observations=np.array([10_000.0, 0.0]),
        calls=np.array([20_000.0, 20_000.0]),
        headroom=np.array([[0.2, 0.3]]),
    )
    rule, all_ = SoftElimination(), everything(known)
    assert rule.probabilities(known, all_)[0, 1] > 0.99
    assert rule.probabilities(replace(known, headroom=None), all_)[0, 1] < 0.01
    close = replace(known, utility=np.array([[0.2, 0.6]]))  # it may bring 0.6 + 0.3 - 1 = -0.1
    assert rule.probabilities(close, all_)[0, 1] < 0.01


def test_where_only_arms_without_judgements_are_allowed_they_are_compared_as_usual() -> None:
    """There is no other arm to be behind."""
    known = replace(
        beliefs([0.8, 0.7, 0.7], 0.1),
        observations=np.array([1_000.0, 0.0, 0.0]),
        calls=np.array([1_000.0, 1_000.0, 1_000.0]),
    )
    found = SoftElimination().probabilities(known, np.array([[False, True, True]]))
    assert found[0] == pytest.approx([0.0, 0.5, 0.5])


def test_elimination_shares_evenly_among_equals_however_sure_they_are() -> None:
    """Uncertainty widens what is tolerated behind the best; it is no merit of its own."""
    known = beliefs([0.5, 0.5, 0.5], [1e-9, 1e-2, 1e3])
    found = SoftElimination().probabilities(known, everything(known))
    assert found[0] == pytest.approx([1 / 3] * 3)


def test_an_arm_that_could_not_pay_even_if_it_were_perfect_costs_little_by_the_floor() -> None:
    """Of its part of the floor it keeps the less, the further it would still be behind."""
    known = replace(
        beliefs([0.8, 0.7, -0.9], 1 / 10_000, 10_000), headroom=np.array([[0.2, 0.3, 0.8]])
    )
    _, near, dear = SoftElimination().probabilities(known, everything(known))[0]
    assert near == pytest.approx(0.005 / 3)
    assert dear == pytest.approx(0.005 / 3 * 0.1 / (0.1 + 0.9))


def test_elimination_tries_an_uncertain_arm_where_a_sure_one_is_given_up() -> None:
    """Of two arms equally far behind, the less known is tried more."""
    known = beliefs([0.9, 0.7, 0.7], [0.01, 0.01, 0.2])
    _, sure, unsure = SoftElimination().probabilities(known, everything(known))[0]
    assert sure == pytest.approx(0.005 / 3, rel=0.4)
    assert unsure > 0.2


@pytest.mark.parametrize("spread", [(20, 200), (5, 5_000), (1, 100_000)])
def test_thompsons_probabilities_are_those_of_simulated_draws(spread: tuple[int, int]) -> None:
    """Of 2 to 12 arms known like after so many events, alike or very differently well."""
    rng = np.random.default_rng(17)
    worst = 0.0
    for _ in range(25):
        k = int(rng.integers(2, 13))
        uncertainty = np.exp(-rng.uniform(*np.log(spread), size=k))
        known = beliefs((0.5 + 0.1 * rng.normal(size=k)).tolist(), uncertainty.tolist())
        found = Thompson(scale=0.5, floor=0.0).probabilities(known, everything(known))[0]
        deviation = np.sqrt(0.5 * 0.2 * uncertainty)
        drawn = np.argmax(known.utility + deviation * rng.normal(size=(40_000, k)), axis=1)
        worst = max(worst, np.abs(np.bincount(drawn, minlength=k) / 40_000 - found).max())
    assert worst < 0.02


def test_thompson_tells_close_arms_apart_beside_one_that_is_unknown() -> None:
    """The scale on which sure arms differ is not lost in the spread of an unsure one."""
    known = beliefs([0.5, 0.51, 0.3], [1e-4, 1e-4, 1.0])
    found = Thompson(scale=1.0, floor=0.0).probabilities(known, everything(known))[0]
    deviation = np.sqrt(0.2 * known.uncertainty)
    draws = known.utility + deviation * np.random.default_rng(3).normal(size=(200_000, 3))
    simulated = np.bincount(np.argmax(draws, axis=1), minlength=3) / 200_000
    assert np.abs(found - simulated).max() < 0.02


@pytest.mark.parametrize("scale", [0.02, 0.25, 1.0, 100.0])
def test_thompsons_scale_multiplies_the_variance(scale: float) -> None:
    """Two arms: the worse one wins with `Φ(−gap / √(2·scale·σ²·u))`, beside its floor."""
    known = beliefs([0.9, 0.8], 0.05)
    found = Thompson(scale=scale, floor=0.02).probabilities(known, everything(known))[0, 1]
    wins = 0.5 * math.erfc(0.1 / math.sqrt(2 * scale * 0.2 * 0.05) / math.sqrt(2))
    assert found == pytest.approx(0.01 + 0.98 * wins, abs=2e-3)


def test_linucb_takes_the_arm_that_could_be_best() -> None:
    """`û + width·σ·√u`: a wide interval wins over a slightly better mean, and not without it."""
    known = beliefs([0.7, 0.6, 0.1], [0.01, 0.16, 0.01])
    bounds = [0.7 + 2 * math.sqrt(0.002), 0.6 + 2 * math.sqrt(0.032)]
    assert bounds[1] > bounds[0]
    hopeful = LinUcb(width=2.0, floor=0.03).probabilities(known, everything(known))[0]
    sober = LinUcb(width=0.0, floor=0.03).probabilities(known, everything(known))[0]
    assert hopeful == pytest.approx([0.01, 0.98, 0.01])
    assert sober == pytest.approx([0.98, 0.01, 0.01])


@pytest.mark.parametrize("rule", [LinUcb(floor=0.1), EpsilonGreedy(floor=0.1)])
def test_ties_share_what_the_best_arm_gets(rule: LinUcb | EpsilonGreedy) -> None:
    """Also when one of the equals is excluded."""
    known = beliefs([0.8, 0.8, 0.8, 0.2], 0.001, 1e6)
    found = rule.probabilities(known, everything(known))[0]
    assert found == pytest.approx([0.325, 0.325, 0.325, 0.025])
    without = np.array([[True, False, True, True]])
    found = rule.probabilities(known, without)[0]
    assert found == pytest.approx([0.45 + 0.1 / 3, 0.0, 0.45 + 0.1 / 3, 0.1 / 3])


@pytest.mark.parametrize(
    ("events", "epsilon"), [(0, 1.0), (12, 0.2 * 3 / math.sqrt(37)), (10**8, 0.03)]
)
def test_epsilon_fades_to_its_floor(events: int, epsilon: float) -> None:
    """`ε = max(floor, min(1, scale·K/√(1 + t)))`, of which each arm has an even part."""
    known = beliefs([0.5, 0.9, 0.7], 0.1, events)
    rule = EpsilonGreedy(scale=1.5 if events == 0 else 0.2, floor=0.03)
    found = rule.probabilities(known, everything(known))[0]
    assert found == pytest.approx([epsilon / 3, 1 - 2 * epsilon / 3, epsilon / 3])
