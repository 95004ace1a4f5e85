"""Events that wait to be summed: none is lost, and none waits for long."""

from __future__ import annotations

import numpy as np
import pytest

from metallm_stream.policy import Sums
from metallm_stream.policy.pending import Pending


@pytest.mark.parametrize("batch", [1, 7, 50, 300])
def test_what_waited_is_summed_as_if_it_came_at_once(batch: int) -> None:
    """However the events of two arms come, settled sums are those of one call an arm."""
    rng = np.random.default_rng(1)
    contexts, qualities = rng.normal(size=(300, 3)), rng.random(300)
    scales = rng.uniform(0, 2, size=300)
    whole, sums, pending = Sums(3), Sums(3), Pending()
    for arm in "ab":
        whole.add_quality(arm, contexts, qualities, np.ones(300), scales)
    for start in range(0, 300, batch):
        part = slice(start, start + batch)
        for arm in "ab":
            pending.add(sums, arm, contexts[part], qualities[part], scales[part])
    pending.settle(sums)
    assert sums.difference(whole) <= 1e-12
    pending.settle(sums)
    assert sums.difference(whole) <= 1e-12


def test_many_events_do_not_wait() -> None:
    """The 128th event of an arm brings all of that arm's into the sums, and no other's."""
    sums, pending = Sums(1), Pending()
    for number in range(128):
        assert sums.arms == ()
        for arm in "ab" if number < 127 else "a":
            pending.add(sums, arm, np.ones((1, 1)), np.ones(1), np.zeros(1))
    assert (sums.observations("a"), sums.observations("b")) == (128, 0)
    pending.settle(sums)
    assert sums.observations("b") == 127
