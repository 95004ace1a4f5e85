"""Nominal 95 % intervals hold the truth in about 95 % of logs, however the log was made."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from benchmarks.synthetic_logs import LOGGERS, Logs, coverage, simulate
from metallm_stream.evaluate import PolicyEvaluation
from metallm_stream.evaluate.anytime import AnytimeDoublyRobust

LOGS, DECISIONS, PIECES = 400, 1_200, 10
SUCCESS = np.array([[0.9, 0.6], [0.5, 0.6], [0.6, 0.7]])
# Four standard errors of a share of 400 logs: 48 shares are looked at.
TOLERANCE = 4 * math.sqrt(0.95 * 0.05 / LOGS)
every_logger = pytest.mark.parametrize("logger", LOGGERS)


@functools.cache
def logs_of(logger: str) -> Logs:
    """The same logs for every test."""
    rng = np.random.default_rng(11)
    return simulate(SUCCESS, LOGGERS[logger], decisions=DECISIONS, logs=LOGS, rng=rng)


@every_logger
def test_intervals_hold_the_truth_as_often_as_they_say(logger: str) -> None:
    """All but the anytime-valid one, for each target, under policies that stay and that learn."""
    logs = logs_of(logger)
    for target, aim in logs.aims().items():
        covered, effective = coverage(logs, aim)
        assert effective > 100
        anytime = covered.pop("dr_anytime")
        assert anytime.coverage >= 0.95
        for name, found in covered.items():
            assert abs(found.coverage - 0.95) < TOLERANCE, (logger, target, name, found)
            assert found.width < anytime.width


@every_logger
def test_the_anytime_interval_holds_at_every_look(logger: str) -> None:
    """Of ten looks at each log, all ten hold the truth of their time in 95 % of the logs."""
    logs = logs_of(logger)
    step = DECISIONS // PIECES
    for aim in logs.aims().values():
        missed = 0
        for r in range(LOGS // 4):
            estimator, held = AnytimeDoublyRobust(0, 1), True
            for start in range(0, DECISIONS, step):
                estimator.add(logs.log(r, aim, slice(start, start + step)))
                found, truth = estimator.estimate(), aim.truth[r, start + step - 1]
                assert found.low is not None
                assert found.high is not None
                held &= bool(found.low <= truth <= found.high)
            missed += not held
        assert missed <= 0.05 * LOGS / 4


@pytest.mark.parametrize("success", [0.9, 0.95, 0.98, 0.995])
def test_intervals_of_an_arm_that_hardly_ever_fails_hold_the_truth_or_are_noted(
    success: float,
) -> None:
    """Near 1 the spread says too little; without a note intervals hold it, dr_anytime always."""
    rng = np.random.default_rng(3)
    chances = np.array([[0.9, 0.9, success]])
    logs = simulate(chances, LOGGERS["static"], decisions=DECISIONS, logs=LOGS, rng=rng)
    aim = logs.aims()["always:2"]
    held: dict[str, list[bool]] = {}
    noted = []
    for r in range(LOGS):
        evaluation = PolicyEvaluation("target", (0.0, 1.0))
        evaluation.add(logs.log(r, aim))
        value = evaluation.value()
        noted.append(bool(value.notes))
        for said in value.estimates:
            assert said.low is not None
            assert said.high is not None
            held.setdefault(said.estimator, []).append(said.low <= success <= said.high)
    assert np.mean(held.pop("dr_anytime")) >= 0.95
    for name, holds in held.items():
        trusted = np.array(noted) | np.array(holds)
        assert np.mean(trusted) > 0.95 - TOLERANCE, name


def test_the_mean_of_what_an_arm_brought_does_not_hold_the_truth() -> None:
    """Where the policy picked the situations, weights are needed: these logs tell the two apart."""
    logs = logs_of("thompson")
    held = []
    for r in range(LOGS):
        got = logs.reward[r][logs.chosen[r] == 0]
        error = got.std() / math.sqrt(len(got))
        held.append(abs(got.mean() - SUCCESS[:, 0].mean()) <= 1.96 * error)
    assert np.mean(held) < 0.5
