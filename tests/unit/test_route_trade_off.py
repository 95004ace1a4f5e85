"""The trade-off of a query that says nothing of its own."""

from __future__ import annotations

import math

import pytest

from metallm_stream.events import Query
from metallm_stream.route import TradeOff


def test_a_query_overrides_each_default_by_itself() -> None:
    """A weight of 0 is a wish too, not an absent one."""
    queries = [
        Query(query_id="a", text="t"),
        Query(query_id="b", text="t", cost_weight=0.0),
        Query(query_id="c", text="t", latency_weight=2.0),
    ]
    cost, latency = TradeOff(0.1, 0.5, 10.0).weights(queries)
    assert cost.tolist() == [0.1, 0.0, 0.1]
    assert latency.tolist() == [0.5, 0.5, 2.0]


@pytest.mark.parametrize(
    "values", [(-0.1, 0.0, 1.0), (0.0, -1.0, 1.0), (0.0, 0.0, 0.0), (math.nan, 0.0, 1.0)]
)
def test_weights_out_of_range_are_refused(values: tuple[float, float, float]) -> None:
    """Negative weights, a scale of 0 and NaN fail at once."""
    with pytest.raises(ValueError, match="weights must be at least 0"):
        TradeOff(*values)
