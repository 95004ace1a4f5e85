"""Numbers that outgrow a double, as factors of ordinary size and one exponent of 2.

Invariant: shifting and splitting lose nothing but what underflows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_UNDERFLOW = -2_200  # no double survives such a shift


def shifted(values: NDArray[np.float64], exponent: int) -> NDArray[np.float64]:
    """`values · 2^exponent`, exact but for underflow. A copy."""
    if exponent == 0:
        return values.copy()
    product: NDArray[np.float64] = np.ldexp(values, max(exponent, _UNDERFLOW))
    return product


def split(log2_scale: NDArray[np.float64], arm: str) -> tuple[NDArray[np.float64], int]:
    """`2^log2_scale` as factors and one exponent.

    The fraction's power is taken first, so that an event has the same factor, but for its
    exponent, whichever events it comes with.
    """
    if not np.isfinite(log2_scale).all():
        raise ValueError(f"the scale of an event of arm {arm!r} must be finite")
    whole = np.floor(log2_scale)
    exponent = int(whole.max()) if len(whole) else 0
    shifts = np.maximum(whole - exponent, _UNDERFLOW).astype(np.int64)
    return np.ldexp(np.exp2(log2_scale - whole), shifts), exponent
