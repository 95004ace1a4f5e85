"""The leaky bucket, whatever is taken and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metallm_stream.providers.bucket import Bucket

TAKEN = st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 20)), min_size=1, max_size=60)


@given(taken=TAKEN, a_minute=st.floats(6, 6_000))
def test_no_span_of_time_sees_more_than_the_limit(
    taken: list[tuple[float, float]], a_minute: float
) -> None:
    """Capacity, what drains meanwhile, and the largest single amount bound every span."""
    bucket, now_s = Bucket.a_minute(a_minute), 0.0
    left: list[tuple[float, float]] = []
    for pause_s, amount in taken:
        now_s += pause_s
        left.append((now_s + bucket.take(amount, now_s), amount))
    most = bucket.capacity + max(amount for _, amount in left)
    for start, (began_s, _) in enumerate(left):
        used = 0.0
        for left_s, amount in left[start:]:
            used += amount
            assert used <= most + (left_s - began_s) * bucket.rate_per_s + 1e-6


@given(taken=TAKEN, a_minute=st.floats(6, 6_000))
def test_who_takes_first_leaves_first(taken: list[tuple[float, float]], a_minute: float) -> None:
    """And the wait that is told beforehand is the one that is had."""
    bucket, now_s, last_s = Bucket.a_minute(a_minute), 0.0, 0.0
    for pause_s, _ in taken:
        now_s += pause_s
        told_s = bucket.wait_s(1.0, now_s)
        wait_s = bucket.take(1.0, now_s)
        assert wait_s == told_s >= 0
        assert now_s + wait_s >= last_s - 1e-6
        last_s = now_s + wait_s
