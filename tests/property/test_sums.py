"""Order, shards, batches, corrections, snapshots: none of them changes the sums."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from metallm_stream.policy import Sums, Usage, fit, merged, usage_of_call

D = 3
ARMS = ("large", "small", "tiny")
unit = st.floats(-1, 1, allow_nan=False, width=32)
quality = st.floats(0, 1, allow_nan=False)
event = st.tuples(
    st.sampled_from(ARMS), st.tuples(unit, unit, unit), quality, st.floats(0, 1e-2), st.booleans()
)
events = st.lists(event, min_size=1, max_size=40)
TOLERANCE = 1e-9


def add(sums: Sums, item: tuple, weight: float = 1.0) -> None:
    """Book one labelled call, or take it out again with weight −1."""
    arm, context, value, cost_usd, failed = item
    sums.add_quality(arm, [context], [value], [weight])
    sums.add_usage(arm, weight * usage_of_call(failed=failed, cost_usd=cost_usd, latency_s=0.2))


def folded(items: list[tuple]) -> Sums:
    """The sums of events, one by one in this order."""
    sums = Sums(D)
    for item in items:
        add(sums, item)
    return sums


@given(items=events, seed=st.integers(0, 2**32 - 1))
def test_order_changes_nothing(items: list[tuple], seed: int) -> None:
    """Any order of the same events gives the same sums."""
    shuffled = [items[i] for i in np.random.default_rng(seed).permutation(len(items))]
    assert folded(shuffled).difference(folded(items)) <= TOLERANCE


@given(items=events, shards=st.integers(1, 5))
def test_sharding_changes_nothing(items: list[tuple], shards: int) -> None:
    """However events are dealt to shards, the sum of the shards is the whole."""
    parts = [folded(items[shard::shards]) for shard in range(shards)]
    assert merged(parts, D).difference(folded(items)) <= TOLERANCE


@given(items=events)
def test_batches_change_nothing(items: list[tuple]) -> None:
    """One matrix product over an arm's events is the same as one event at a time."""
    sums = Sums(D)
    for arm in ARMS:
        own = [item for item in items if item[0] == arm]
        if own:
            sums.add_quality(arm, [i[1] for i in own], [i[2] for i in own], np.ones(len(own)))
            sums.add_usage(
                arm,
                [usage_of_call(failed=i[4], cost_usd=i[3], latency_s=0.2) for i in own],
            )
    assert sums.difference(folded(items)) <= TOLERANCE


@given(items=events, passing=events, seed=st.integers(0, 2**32 - 1))
def test_what_is_taken_out_again_leaves_nothing(
    items: list[tuple], passing: list[tuple], seed: int
) -> None:
    """Corrected labels, withdrawals and duplicates: +w and −w in any order cancel."""
    steps = [(item, 1.0) for item in items + passing] + [(item, -1.0) for item in passing]
    sums = Sums(D)
    for position in np.random.default_rng(seed).permutation(len(steps)):
        add(sums, *steps[position])
    assert sums.difference(folded(items)) <= TOLERANCE


@given(items=events, cut=st.integers(0, 40))
def test_a_snapshot_at_any_cut_is_exact(items: list[tuple], cut: int) -> None:
    """fold(prefix) → bytes → restore → fold(suffix) is fold(all), to the last bit."""
    prefix = folded(items[:cut])
    restored = Sums.from_bytes({arm: prefix.arm_to_bytes(arm) for arm in prefix.arms}, D)
    assert restored.difference(prefix) == 0.0
    for item in items[cut:]:
        add(restored, item)
    assert restored.difference(folded(items)) == 0.0


@given(items=events)
def test_sums_are_symmetric(items: list[tuple]) -> None:
    """The upper triangle, which is all that is stored, is all there is."""
    sums = folded(items)
    for arm in sums.arms:
        assert np.array_equal(sums.gram(arm), sums.gram(arm).T)


@given(items=events)
def test_wider_contexts_leave_the_rest_alone(items: list[tuple]) -> None:
    """Appending features is the same as if they had been 0 from the start."""
    wide = Sums(D + 2)
    for arm, context, value, cost_usd, failed in items:
        add(wide, (arm, (*context, 0.0, 0.0), value, cost_usd, failed))
    assert folded(items).widened(D + 2).difference(wide) <= TOLERANCE


@given(items=events)
@settings(max_examples=60)
def test_a_fit_is_finite_whatever_the_sums(items: list[tuple]) -> None:
    """No events, one, equal ones, more dimensions than events: predictions are finite numbers."""
    found = fit(folded(items), ARMS)
    assert np.isfinite(found.scorer().quality(np.eye(D), [*ARMS, "unknown"])).all()
    assert np.isfinite(found.log_evidence)
    assert found.noise_variance > 0


@given(items=events)
@settings(max_examples=60)
def test_a_fit_of_withdrawn_events_is_the_fit_of_none(items: list[tuple]) -> None:
    """When every label is withdrawn, round-off does not pass for knowledge."""
    sums = folded(items)
    for item in items:
        add(sums, item, -1.0)
    found, empty = fit(sums, ARMS), fit(Sums(D), ARMS)
    assert np.array_equal(found.weights, empty.weights)
    assert found.mean_quality.tolist() == empty.mean_quality.tolist() == [0.5, 0.5, 0.5]
    assert sums.usage("large")[Usage.CALLS] == 0
