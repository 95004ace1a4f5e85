"""What calls cost, whether labelled or not: sums of each arm, booked when results arrive.

Invariant: a vector of these sums is additive: the vector of two calls is the sum of theirs, and
the negated vector takes a call out again.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

# Less than so many events or calls is what round-off leaves of those taken out again.
NOTHING = 1e-6
# Lengths of prompts are counted in thousands of characters.
CHARACTERS = 1_000.0


class Usage(IntEnum):
    """Positions in a usage vector, which is float64 of shape `(len(Usage),)`.

    Means need their own counts, since a call may lack a cost (`cost_calls`), token counts
    (`token_calls`) or a latency (`latency_calls`). The last five tell how cost grows with the
    prompt, of calls for which both are known; lengths are in thousands of characters.
    """

    CALLS = 0
    FAILURES = 1
    COST_CALLS = 2
    COST_USD = 3
    COST_USD_SQUARED = 4
    TOKEN_CALLS = 5
    INPUT_TOKENS = 6
    OUTPUT_TOKENS = 7
    LATENCY_CALLS = 8
    LATENCY_S = 9
    LATENCY_S_SQUARED = 10
    LENGTH_CALLS = 11
    LENGTH = 12
    LENGTH_SQUARED = 13
    LENGTH_COST_USD = 14
    LENGTH_TIMES_COST = 15


_REST = [0.0] * (len(Usage) - 2)


class CallFacts(TypedDict, total=False):
    """What is known of one call."""

    failed: bool
    cost_usd: float | None
    input_tokens: int | None
    output_tokens: int | None
    latency_s: float | None
    prompt_characters: int | None


def usage_row(
    *,
    failed: bool = False,
    cost_usd: float | None = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    latency_s: float | None = None,
    prompt_characters: int | None = None,
) -> list[float]:
    """One call as the numbers of a usage vector; what is unknown (`None`) is not counted.

    Tokens count only where both numbers are known. Raises `ValueError` for values that are
    negative or not finite.
    """
    row = [1.0, float(failed), *_REST]
    if cost_usd is not None:
        cost = _amount("cost_usd", cost_usd)
        row[Usage.COST_CALLS : Usage.TOKEN_CALLS] = 1.0, cost, cost * cost
    if input_tokens is not None and output_tokens is not None:
        tokens = _amount("input_tokens", input_tokens), _amount("output_tokens", output_tokens)
        row[Usage.TOKEN_CALLS : Usage.LATENCY_CALLS] = 1.0, *tokens
    if latency_s is not None:
        seconds = _amount("latency_s", latency_s)
        row[Usage.LATENCY_CALLS : Usage.LENGTH_CALLS] = 1.0, seconds, seconds * seconds
    if cost_usd is not None and prompt_characters is not None:
        length = _amount("prompt_characters", prompt_characters) / CHARACTERS
        row[Usage.LENGTH_CALLS :] = 1.0, length, length * length, cost_usd, length * cost_usd
    return row


def usage_of_call(**call: Unpack[CallFacts]) -> NDArray[np.float64]:
    """One call as a usage vector; see `usage_row`.

    >>> usage_of_call(cost_usd=0.5, latency_s=2.0)[[Usage.CALLS, Usage.COST_USD, Usage.TOKEN_CALLS]]
    array([1. , 0.5, 0. ])
    """
    return np.array(usage_row(**call))


def mean_of(usage: NDArray[np.float64], total: Usage, count: Usage) -> float | None:
    """The mean `usage[total] / usage[count]`, or `None` where nothing was counted.

    >>> mean_of(usage_of_call(cost_usd=0.5), Usage.COST_USD, Usage.COST_CALLS)
    0.5
    """
    n = float(usage[count])
    return max(0.0, float(usage[total]) / n) if n > NOTHING else None


def _amount(name: str, value: float) -> float:
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be finite and not negative, got {value!r}")
    return float(value)
