"""What the demo's users do is drawn beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from metallm_stream.cli.demo.schedule import LONGEST_DELAY_S, schedule


def test_a_seed_repeats_the_users() -> None:
    """The same arguments give the same schedule, another seed another one."""
    one, same, other = (schedule(500, 0.5, seed) for seed in (3, 3, 4))
    assert all(np.array_equal(getattr(one, name), getattr(same, name)) for name in vars(one))
    assert not np.array_equal(one.labelled, other.labelled)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_the_labelled_part_is_the_asked_one(fraction: float) -> None:
    """About the wanted fraction is labelled; none and all are exact."""
    labelled = schedule(4_000, fraction, seed=0).labelled.mean()
    assert labelled == pytest.approx(fraction, abs=0 if fraction in (0, 1) else 0.03)


def test_only_labelled_queries_are_judged_twice_or_corrected() -> None:
    """The two ways exclude each other, and both occur."""
    users = schedule(4_000, 0.5, seed=0)
    assert not (users.twice & users.corrected).any()
    assert not ((users.twice | users.corrected) & ~users.labelled).any()
    assert users.twice.any()
    assert users.corrected.any()
    assert users.asked_again.any()


def test_delays_are_about_a_second_and_bounded() -> None:
    """Labels come a second late in the mean, and never so late that the demo waits for them."""
    delay_s = schedule(4_000, 0.5, seed=0).delay_s
    assert delay_s.mean() == pytest.approx(1.0, abs=0.1)
    assert delay_s.min() >= 0
    assert delay_s.max() <= LONGEST_DELAY_S
