"""What calls cost, whether labelled or not: sums of each arm, booked when results arrive.

Invariant: a vector of these sums is additive: the vector of two calls is the sum of theirs, and
the negated vector takes a call out again.
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

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


def usage_of_call(
    *,
    failed: bool = False,
    cost_usd: float | None = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    latency_s: float | None = None,
    prompt_characters: int | None = None,
) -> NDArray[np.float64]:
    """One call as a usage vector; what is unknown (`None`) is not counted, never taken as zero.

    Tokens count only where both numbers are known. Raises `ValueError` for values that are
    negative or not finite.

    >>> usage_of_call(cost_usd=0.5, latency_s=2.0)[[Usage.CALLS, Usage.COST_USD, Usage.TOKEN_CALLS]]
    array([1. , 0.5, 0. ])
    """
    usage = np.zeros(len(Usage))
    usage[Usage.CALLS] = 1
    usage[Usage.FAILURES] = failed
    if cost_usd is not None:
        cost = _amount("cost_usd", cost_usd)
        usage[Usage.COST_CALLS : Usage.COST_USD_SQUARED + 1] = 1, cost, cost * cost
    if input_tokens is not None and output_tokens is not None:
        tokens = _amount("input_tokens", input_tokens), _amount("output_tokens", output_tokens)
        usage[Usage.TOKEN_CALLS : Usage.OUTPUT_TOKENS + 1] = 1, *tokens
    if latency_s is not None:
        seconds = _amount("latency_s", latency_s)
        usage[Usage.LATENCY_CALLS : Usage.LATENCY_S_SQUARED + 1] = 1, seconds, seconds * seconds
    if cost_usd is not None and prompt_characters is not None:
        length = _amount("prompt_characters", prompt_characters) / CHARACTERS
        usage[Usage.LENGTH_CALLS :] = 1, length, length * length, cost_usd, length * cost_usd
    return usage


def mean_of(usage: NDArray[np.float64], total: Usage, count: Usage) -> float | None:
    """The mean `usage[total] / usage[count]`, or `None` where nothing was counted.

    >>> mean_of(usage_of_call(cost_usd=0.5), Usage.COST_USD, Usage.COST_CALLS)
    0.5
    """
    n = float(usage[count])
    # A count below this is what round-off leaves of calls that were all taken out again.
    return max(0.0, float(usage[total]) / n) if n > 1e-6 else None


def _amount(name: str, value: float) -> float:
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be finite and not negative, got {value!r}")
    return float(value)
