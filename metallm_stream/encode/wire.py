"""Contexts as bytes, as decisions carry them.

Invariant: what comes back is finite and of the expected length, or it is an `InvalidEvent`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metallm_stream.errors import InvalidEvent

NOT_FINITE = "context: has NaN or infinite numbers; encode the text again"


def context_to_bytes(context: ArrayLike) -> bytes:
    """One context `(d,)` as little-endian float32, 4·d bytes."""
    return np.asarray(context, dtype="<f4").tobytes()


def context_from_bytes(raw: bytes, dimensions: int) -> NDArray[np.float32]:
    """Read one context back, `(d,)`; raises `InvalidEvent` for a wrong length or NaN, infinity.

    >>> context_from_bytes(context_to_bytes([0.6, 0.8]), 2)
    array([0.6, 0.8], dtype=float32)
    """
    if len(raw) != 4 * dimensions:
        raise InvalidEvent(
            f"context: {len(raw)} bytes where {dimensions} float32 numbers ({4 * dimensions} "
            "bytes) are expected; was it made by another encoder?"
        )
    context = np.frombuffer(raw, dtype="<f4").astype(np.float32)
    if not np.isfinite(context).all():
        raise InvalidEvent(NOT_FINITE)
    return context


def contexts_from_bytes(raw: Sequence[bytes], dimensions: int) -> NDArray[np.float32]:
    """Read many contexts back at once, `(n, d)`; raises as `context_from_bytes` does.

    >>> contexts_from_bytes([context_to_bytes([0.6, 0.8])], 2)
    array([[0.6, 0.8]], dtype=float32)
    """
    if any(len(one) != 4 * dimensions for one in raw):
        return np.stack([context_from_bytes(one, dimensions) for one in raw])
    contexts = np.frombuffer(b"".join(raw), dtype="<f4").astype(np.float32)
    if not np.isfinite(contexts).all():
        raise InvalidEvent(NOT_FINITE)
    return contexts.reshape(len(raw), dimensions)
