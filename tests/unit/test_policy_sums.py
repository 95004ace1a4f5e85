"""What sums refuse, and what they say when asked."""

from __future__ import annotations

import numpy as np
import pytest

from metallm_stream.errors import ConfigurationError
from metallm_stream.policy import Sums, Usage, mean_of, merged, usage_of_call


def some() -> Sums:
    """Two labelled events and one call of one arm."""
    sums = Sums(2)
    sums.add_quality("a", [[1.0, 0.0], [0.0, 1.0]], [1.0, 0.5], [1.0, 1.0])
    sums.add_usage("a", usage_of_call(cost_usd=0.25, input_tokens=10, output_tokens=2))
    return sums


def test_holds_the_sums_of_least_squares() -> None:
    """`G` has the number of events, the sums of contexts and qualities, and their products."""
    expected = [[2, 1, 1, 1.5], [1, 1, 0, 1.0], [1, 0, 1, 0.5], [1.5, 1.0, 0.5, 1.25]]
    assert some().gram("a").tolist() == expected
    assert some().observations("a") == 2


def test_weights_of_either_sign_are_summed_exactly_symmetric() -> None:
    """`G = Σ w·z·zᵀ` of events added and taken out in one call, at any scale."""
    rng = np.random.default_rng(3)
    contexts, qualities, weights = rng.normal(size=(50, 7)), rng.random(50), rng.normal(size=50)
    scales = rng.uniform(-3, 0, size=50)
    sums = Sums(7)
    sums.add_quality("a", contexts.astype(np.float32), qualities, weights, scales)
    z = np.column_stack((np.ones(50), contexts.astype(np.float32), qualities))
    expected = np.einsum("n,ni,nj->ij", weights * 2.0**scales, z, z)
    assert np.allclose(sums.gram("a"), expected, rtol=0, atol=1e-12)
    assert np.array_equal(sums.gram("a"), sums.gram("a").T)


def test_unknown_arms_are_empty() -> None:
    """An arm without events has zeros, and asking for it does not create it."""
    sums = some()
    assert sums.observations("b") == 0
    assert not sums.gram("b").any()
    assert not sums.usage("b").any()
    assert sums.arms == ("a",)


def test_what_is_handed_out_is_a_copy() -> None:
    """Writing into what `gram`, `usage` and `copy` return leaves the sums alone."""
    sums = some()
    sums.gram("a")[:] = 7
    sums.usage("a")[:] = 7
    sums.copy().add_usage("a", np.ones(len(Usage)))
    assert sums.difference(some()) == 0


@pytest.mark.parametrize(
    ("contexts", "qualities", "weights", "message"),
    [
        ([[1.0, 2.0, 3.0]], [1.0], [1.0], "expected contexts"),
        ([[1.0, 2.0]], [1.0, 0.0], [1.0], "expected contexts"),
        ([[1.0, 2.0]], [1.0], [1.0, 1.0], "expected contexts"),
        ([[np.nan, 2.0]], [1.0], [1.0], "arm 'a' must be finite"),
        ([[0.0, 2.0]], [np.inf], [1.0], "arm 'a' must be finite"),
        ([[0.0, 2.0]], [1.0], [np.nan], "arm 'a' must be finite"),
    ],
)
def test_refuses_what_would_spoil_the_sums(
    contexts: object, qualities: object, weights: object, message: str
) -> None:
    """Other shapes and numbers that are not finite are errors, and change nothing."""
    sums = some()
    with pytest.raises(ValueError, match=message):
        sums.add_quality("a", contexts, qualities, weights)  # type: ignore[arg-type]
    assert sums.difference(some()) == 0


@pytest.mark.parametrize("usage", [np.zeros(3), np.full(len(Usage), np.nan), np.zeros((1, 1, 3))])
def test_refuses_usage_of_another_form(usage: np.ndarray) -> None:
    """A usage vector has its fixed length and finite entries."""
    with pytest.raises(ValueError, match="usage of arm 'a'"):
        some().add_usage("a", usage)


@pytest.mark.parametrize("field", ["cost_usd", "input_tokens", "latency_s"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_refuses_impossible_calls(field: str, value: float) -> None:
    """A call cannot cost, take or count less than nothing."""
    call = {"output_tokens": 1, field: value} if field == "input_tokens" else {field: value}
    with pytest.raises(ValueError, match=field):
        usage_of_call(**call)  # type: ignore[arg-type]


def test_unknown_costs_are_not_zero() -> None:
    """Means count only the calls whose value is known; without any there is no mean."""
    usage = usage_of_call(cost_usd=0.5) + usage_of_call(failed=True)
    assert usage[Usage.CALLS] == 2
    assert mean_of(usage, Usage.COST_USD, Usage.COST_CALLS) == 0.5
    assert mean_of(usage, Usage.FAILURES, Usage.CALLS) == 0.5
    assert mean_of(usage, Usage.LATENCY_S, Usage.LATENCY_CALLS) is None
    assert mean_of(usage_of_call(input_tokens=5), Usage.INPUT_TOKENS, Usage.TOKEN_CALLS) is None


def test_shards_of_other_encoders_do_not_mix() -> None:
    """Sums of different dimensions refuse each other, and differ infinitely."""
    with pytest.raises(ConfigurationError, match="another encoder"):
        some().merge(Sums(3))
    assert some().difference(Sums(3)) == float("inf")
    with pytest.raises(ValueError, match="cannot shrink"):
        some().widened(1)
    with pytest.raises(ValueError, match="negative"):
        Sums(-1)


def test_difference_is_relative_to_the_larger_sums() -> None:
    """Above 1 the difference is relative, and an arm that is missing counts as zeros."""
    big, bigger = Sums(0), Sums(0)
    big.add_quality("a", np.zeros((1, 0)), [0.0], [1e6])
    bigger.add_quality("a", np.zeros((1, 0)), [0.0], [1e6 + 1])
    assert big.difference(bigger) == pytest.approx(1e-6)
    assert Sums(0).difference(big) == 1.0
    assert merged([], 0).difference(Sums(0)) == 0.0


def test_stored_sums_are_checked() -> None:
    """Bytes of another layout, length or dimension, or not finite, are refused with a remedy."""
    raw = some().arm_to_bytes("a")
    refused = {
        "layout": b"XXXX" + raw[4:],
        "bytes instead of": raw[:-8],
        "not finite": raw[:-8] + np.array([np.nan]).tobytes(),
        "layout 1": b"",
    }
    for message, damaged in refused.items():
        sums = Sums(2)
        with pytest.raises(ConfigurationError, match=message):
            sums.add_from_bytes("a", damaged)
        assert sums.arms == ()
    with pytest.raises(ConfigurationError, match="2 dimensions where 3 are expected"):
        Sums(3).add_from_bytes("a", raw)


def test_restoring_adds() -> None:
    """Bytes are added to what is there, so that shards restore into one."""
    sums = some()
    sums.add_from_bytes("a", some().arm_to_bytes("a"))
    assert sums.observations("a") == 4
