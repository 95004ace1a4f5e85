"""Inverse-gap weighting in figures, and the registry of rules."""

from __future__ import annotations

import numpy as np
import pytest

from metallm_stream.errors import ConfigurationError
from metallm_stream.policy import (
    DEFAULT_CHOOSER,
    Beliefs,
    Fixed,
    InverseGap,
    SoftElimination,
    chooser,
)

ARMS = ("a", "b", "c")
ALL = np.ones((1, 3), dtype=np.bool_)


def beliefs(utilities: list[float], observations: list[float]) -> Beliefs:
    """About one query; neither uncertainty nor noise matters here."""
    return Beliefs(ARMS, np.array([utilities]), np.ones((1, 3)), np.array(observations), 0.2)


def probabilities(
    utilities: list[float], observations: list[float], **parameters: float
) -> list[float]:
    """Of one query that allows all arms, without a floor unless asked for."""
    rule = InverseGap(**{"floor": 0.0, **parameters})  # type: ignore[arg-type]
    found = rule.probabilities(beliefs(utilities, observations), ALL)
    return [float(p) for p in found[0]]


def test_weights_are_inverse_to_the_gap() -> None:
    """P = 1 / (K + γ√t · gap) for the arms behind, the rest for the best."""
    found = probabilities([0.9, 0.8, 0.4], [16.0, 16.0, 32.0], gamma=10)
    behind = [1 / (3 + 80 * 0.1), 1 / (3 + 80 * 0.5)]
    assert found == pytest.approx([1 - sum(behind), *behind])


def test_equal_arms_share_evenly() -> None:
    """Without a gap there is nothing to choose."""
    assert probabilities([0.5, 0.5, 0.5], [50.0] * 3) == pytest.approx([1 / 3] * 3)


def test_nothing_tried_is_uniform() -> None:
    """Before first pulls estimates do not count, however far apart they are."""
    assert probabilities([9.0, 0.0, -9.0], [4.0, 0.0, 0.0]) == pytest.approx([1 / 3] * 3)


def test_an_untried_arm_takes_its_even_share_and_no_more() -> None:
    """A new arm, or one whose labels never come, does not stop the others from being good."""
    found = probabilities([0.9, 0.1, 0.5], [5_000.0, 5_000.0, 0.0], gamma=300)
    assert found[2] == pytest.approx(1 / 3)
    assert found[0] == pytest.approx(2 / 3, abs=1e-3)


def test_the_floor_is_spread_evenly() -> None:
    """An arm that is hopeless keeps its part of the floor."""
    found = probabilities([1e9, 0.0, 0.0], [1e6] * 3, floor=0.03)
    assert found == pytest.approx([0.98, 0.01, 0.01])


def test_exploration_fades_with_the_events_of_the_allowed_arms() -> None:
    """More labelled events, less exploration; events of arms that are excluded do not count."""
    few, many = (probabilities([0.9, 0.8, 0.7], [n] * 3)[0] for n in (10.0, 10_000.0))
    assert few < many
    excluded = np.array([[True, True, False]])
    known = [beliefs([0.9, 0.8, 0.7], [10.0, 10.0, n]) for n in (0.0, 1e9)]
    assert np.array_equal(*(InverseGap().probabilities(each, excluded) for each in known))


def test_a_fixed_arm_gives_way_where_it_is_excluded() -> None:
    """Queries that exclude it, or a catalogue without it, get the best allowed arm."""
    known = beliefs([0.1, 0.2, 0.9], [0.0] * 3)
    without = np.array([[False, True, True]])
    assert Fixed("a").probabilities(known, ALL)[0].tolist() == [1, 0, 0]
    assert Fixed("a").probabilities(known, without)[0].tolist() == [0, 0, 1]
    assert Fixed("gone").probabilities(known, ALL)[0].tolist() == [0, 0, 1]


def test_the_default_is_soft_elimination() -> None:
    """Under the name that policies are published and decisions are logged with."""
    assert chooser() == SoftElimination()
    assert chooser().name == DEFAULT_CHOOSER == "ridge-elimination"


@pytest.mark.parametrize(
    "name", ["", "linucb", "fixed", "fixed:", "uniform:b", "ridge-igw:3", "ridge-thompson:1"]
)
def test_unknown_names_are_refused_with_those_known(name: str) -> None:
    """The message lists what may stand there."""
    known = (
        "ridge-elimination, ridge-igw, ridge-thompson, ridge-linucb, ridge-epsilon, uniform,"
        " fixed:<arm>"
    )
    with pytest.raises(ConfigurationError, match=known):
        chooser(name)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ridge-igw", {"gama": 3.0}),
        ("ridge-igw", {"floor": 1.5}),
        ("ridge-igw", {"gamma": float("nan")}),
        ("ridge-elimination", {"gamma": 3.0}),
        ("ridge-elimination", {"horizon": 0.0}),
        ("ridge-elimination", {"horizon": float("nan")}),
        ("ridge-elimination", {"floor": -0.1}),
        ("ridge-thompson", {"scale": 0.0}),
        ("ridge-thompson", {"floor": float("nan")}),
        ("ridge-linucb", {"width": -1.0}),
        ("ridge-linucb", {"floor": 2.0}),
        ("ridge-epsilon", {"scale": -0.5}),
        ("ridge-epsilon", {"floor": 1.1}),
        ("uniform", {"floor": 0.1}),
        ("fixed:b", {"floor": 0.1}),
    ],
)
def test_parameters_are_checked(name: str, parameters: dict[str, float]) -> None:
    """A misspelt or impossible parameter is an error that names the policy."""
    with pytest.raises(ConfigurationError, match=f"policy '{name}'"):
        chooser(name, **parameters)
