"""Everything that is learned about arms, as sums over events.

Invariant: nothing but addition happens here, so order, sharding and batch size change nothing
beyond round-off, and an event with the negated weight takes the event out again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metallm_stream.errors import ConfigurationError
from metallm_stream.policy.usage import Usage

_HEADER = struct.Struct("<4sHHI")  # magic, layout version, length of the usage vector, dimensions
_MAGIC = b"MLSU"
_LAYOUT = 1


class Sums:
    """Sums per arm: `G = Σ w·z·zᵀ` with `z = [1, x, r]`, and a usage vector (`Usage`).

    `G` is float64, `(d + 2, d + 2)`, and exactly symmetric. It holds all that least squares
    needs of an arm's labelled events: their number `G[0, 0]`, the sums of contexts and
    qualities, `Σ w·x·xᵀ`, `Σ w·r·x` and `Σ w·r²`.

    Parameters
    ----------
    dimensions
        Length d of a context.

    Examples
    --------
    >>> sums = Sums(dimensions=2)
    >>> sums.add_quality("mini", [[1.0, 0.0], [0.0, 1.0]], [1.0, 0.5], [1.0, 1.0])
    >>> sums.observations("mini")
    2.0
    >>> sums.add_quality("mini", [[0.0, 1.0]], [0.5], [-1.0])  # withdrawn
    >>> sums.gram("mini")[0]
    array([1., 1., 0., 1.])

    """

    def __init__(self, dimensions: int) -> None:
        if dimensions < 0:
            raise ValueError(f"dimensions must not be negative, got {dimensions}")
        self.dimensions = dimensions
        self._gram: dict[str, NDArray[np.float64]] = {}
        self._usage: dict[str, NDArray[np.float64]] = {}

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms with any event so far, in alphabetical order."""
        return tuple(sorted(self._gram))

    def gram(self, arm: str) -> NDArray[np.float64]:
        """`G` of one arm, `(d + 2, d + 2)`; zeros for an arm without events. A copy."""
        size = self.dimensions + 2
        return self._gram[arm].copy() if arm in self._gram else np.zeros((size, size))

    def usage(self, arm: str) -> NDArray[np.float64]:
        """The usage vector of one arm; zeros for an arm without events. A copy."""
        return self._usage[arm].copy() if arm in self._usage else np.zeros(len(Usage))

    def observations(self, arm: str) -> float:
        """The summed weight of the arm's labelled events."""
        return float(self._gram[arm][0, 0]) if arm in self._gram else 0.0

    def add_quality(
        self, arm: str, contexts: ArrayLike, qualities: ArrayLike, weights: ArrayLike
    ) -> None:
        """Add labelled events of one arm: contexts `(n, d)`, qualities `(n,)`, weights `(n,)`.

        A negative weight takes an event out again: a corrected label is the old one with −w and
        the new one with +w. Raises `ValueError` for other shapes or values that are not finite.
        """
        x = np.atleast_2d(np.asarray(contexts, dtype=np.float64))
        r = np.atleast_1d(np.asarray(qualities, dtype=np.float64))
        w = np.atleast_1d(np.asarray(weights, dtype=np.float64))
        n = len(r)
        if x.shape != (n, self.dimensions) or r.shape != (n,) or w.shape != (n,):
            raise ValueError(
                f"expected contexts (n, {self.dimensions}) with n qualities and n weights, "
                f"got {x.shape}, {r.shape} and {w.shape}"
            )
        z = np.concatenate((np.ones((n, 1)), x, r[:, None]), axis=1)
        if not (np.isfinite(z).all() and np.isfinite(w).all()):
            raise ValueError(f"contexts, qualities and weights of arm {arm!r} must be finite")
        product = (z * w[:, None]).T @ z
        self._add(arm, (product + product.T) / 2, np.zeros(len(Usage)))

    def add_usage(self, arm: str, usage: ArrayLike) -> None:
        """Add calls of one arm: usage `(U,)` or `(n, U)`; negated to take them out again.

        Raises `ValueError` for another shape or values that are not finite.
        """
        rows = np.atleast_2d(np.asarray(usage, dtype=np.float64))
        if rows.ndim != 2 or rows.shape[1] != len(Usage) or not np.isfinite(rows).all():
            raise ValueError(
                f"usage of arm {arm!r} must be finite with {len(Usage)} columns, got {rows.shape}"
            )
        size = self.dimensions + 2
        self._add(arm, np.zeros((size, size)), rows.sum(axis=0))

    def merge(self, other: Sums) -> None:
        """Add another shard's sums to these. Raises `ConfigurationError` if dimensions differ."""
        self._require(other.dimensions, "the other shard")
        for arm in other.arms:
            self._add(arm, other.gram(arm), other.usage(arm))

    def copy(self) -> Sums:
        """Sums that share no memory with these."""
        return merged([self], self.dimensions)

    def widened(self, dimensions: int) -> Sums:
        """The same sums over longer contexts, whose new features were 0 in every event so far."""
        if dimensions < self.dimensions:
            raise ValueError(f"cannot shrink from {self.dimensions} to {dimensions} dimensions")
        keep = [*range(self.dimensions + 1), dimensions + 1]
        wide = Sums(dimensions)
        for arm in self.arms:
            gram = np.zeros((dimensions + 2, dimensions + 2))
            gram[np.ix_(keep, keep)] = self._gram[arm]
            wide._add(arm, gram, self._usage[arm])
        return wide

    def difference(self, other: Sums) -> float:
        """The largest relative difference, `max|a − b| / max(1, max|b|)`, over arms and blocks.

        Infinite if the dimensions differ; an arm missing on one side counts as zeros.
        """
        if other.dimensions != self.dimensions:
            return float("inf")
        arms = {*self.arms, *other.arms}
        return max(
            (
                float(np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(b))))
                for arm in arms
                for a, b in (
                    (self.gram(arm), other.gram(arm)),
                    (self.usage(arm), other.usage(arm)),
                )
            ),
            default=0.0,
        )

    def arm_to_bytes(self, arm: str) -> bytes:
        """One arm's sums, exactly: a header, `G`'s upper triangle and the usage vector.

        Little-endian float64; `8·((d + 2)·(d + 3)/2 + U) + 12` bytes.
        """
        upper = self.gram(arm)[np.triu_indices(self.dimensions + 2)]
        header = _HEADER.pack(_MAGIC, _LAYOUT, len(Usage), self.dimensions)
        return header + np.concatenate((upper, self.usage(arm))).astype("<f8").tobytes()

    def add_from_bytes(self, arm: str, raw: bytes) -> None:
        """Add what `arm_to_bytes` wrote.

        Raises `ConfigurationError` if the bytes are not such a record, or of another dimension.
        """
        values = self._unpacked(arm, raw)
        size = self.dimensions + 2
        gram = np.zeros((size, size))
        gram[np.triu_indices(size)] = values[: -len(Usage)]
        self._add(arm, gram + np.triu(gram, 1).T, values[-len(Usage) :])

    def _unpacked(self, arm: str, raw: bytes) -> NDArray[np.float64]:
        magic, layout, columns, dimensions = (
            _HEADER.unpack_from(raw) if len(raw) >= _HEADER.size else (b"", 0, 0, 0)
        )
        if (magic, layout, columns) != (_MAGIC, _LAYOUT, len(Usage)):
            raise ConfigurationError(
                f"the stored sums of arm {arm!r} are not of layout {_LAYOUT}: "
                "rebuild them with `metallm rebuild`"
            )
        self._require(dimensions, f"the stored record of arm {arm!r}")
        size = self.dimensions + 2
        expected = 8 * (size * (size + 1) // 2 + len(Usage))
        if len(raw) - _HEADER.size != expected:
            raise ConfigurationError(
                f"the stored sums of arm {arm!r} have {len(raw) - _HEADER.size} bytes instead of "
                f"{expected}: rebuild them with `metallm rebuild`"
            )
        values = np.frombuffer(raw, dtype="<f8", offset=_HEADER.size).astype(np.float64)
        if not np.isfinite(values).all():
            raise ConfigurationError(
                f"the stored sums of arm {arm!r} are not finite: rebuild with `metallm rebuild`"
            )
        return values

    def _require(self, dimensions: int, whose: str) -> None:
        if dimensions != self.dimensions:
            raise ConfigurationError(
                f"{whose} has {dimensions} dimensions where {self.dimensions} are expected: "
                "it was learned with another encoder; set that encoder, or rebuild"
            )

    def _add(self, arm: str, gram: NDArray[np.float64], usage: NDArray[np.float64]) -> None:
        if arm not in self._gram:
            self._gram[arm], self._usage[arm] = np.zeros_like(gram), np.zeros(len(Usage))
        self._gram[arm] += gram
        self._usage[arm] += usage


def merged(shards: Iterable[Sums], dimensions: int) -> Sums:
    """The sum of shards; empty sums if there are none."""
    whole = Sums(dimensions)
    for shard in shards:
        whole.merge(shard)
    return whole
