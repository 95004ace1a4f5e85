"""Everything that is learned about arms, as sums over events.

Invariant: nothing but addition happens here, so order, sharding and batch size change nothing
beyond round-off, and an event with the negated weight takes the event out again.

Weights grow without bound under forward decay (`policy/forgetting.py`), so each arm's sums are
kept as numbers of ordinary size and an integer exponent: the true sum is `stored · 2^exponent`.
Aligning exponents is exact; what is 2^1000 times lighter than the newest event is nothing.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metallm_stream.errors import ConfigurationError
from metallm_stream.policy.powers import shifted, split
from metallm_stream.policy.usage import Usage

_HEADER = struct.Struct("<4sHHI")  # magic, layout version, length of the usage vector, dimensions
_EXPONENT = struct.Struct("<q")  # follows the header since layout 2; in layout 1 it is 0
_MAGIC = b"MLSU"
_LAYOUT = 3
# Length of the usage vector in each layout; what came later counts nothing in older ones.
_COLUMNS = {1: 11, 2: 11, _LAYOUT: len(Usage)}


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
        self._exponent: dict[str, int] = {}

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms with any event so far, in alphabetical order."""
        return tuple(sorted(self._gram))

    def gram(self, arm: str) -> NDArray[np.float64]:
        """`G` of one arm, `(d + 2, d + 2)`; zeros for an arm without events. A copy.

        Under forward decay it may be too large for a double: read such sums by `as_of`.
        """
        size = self.dimensions + 2
        if arm not in self._gram:
            return np.zeros((size, size))
        return shifted(self._gram[arm], self._exponent[arm])

    def usage(self, arm: str) -> NDArray[np.float64]:
        """The usage vector of one arm; zeros for an arm without events. A copy."""
        if arm not in self._usage:
            return np.zeros(len(Usage))
        return shifted(self._usage[arm], self._exponent[arm])

    def observations(self, arm: str) -> float:
        """The summed weight of the arm's labelled events."""
        if arm not in self._gram:
            return 0.0
        return float(np.ldexp(self._gram[arm][0, 0], self._exponent[arm]))

    def add_quality(
        self,
        arm: str,
        contexts: ArrayLike,
        qualities: ArrayLike,
        weights: ArrayLike,
        log2_scale: ArrayLike = 0.0,
    ) -> None:
        """Add labelled events of one arm: contexts `(n, d)`, qualities `(n,)`, weights `(n,)`.

        An event counts `weight · 2^log2_scale`, of which the latter is `(n,)` or one number, from
        the arm's clock. A negative weight takes an event out again: a corrected label is the old
        one with −w and the new one with +w, both of one scale. Raises `ValueError` for other
        shapes or values that are not finite.
        """
        x = np.atleast_2d(np.asarray(contexts))
        r = np.atleast_1d(np.asarray(qualities, dtype=np.float64))
        w = np.atleast_1d(np.asarray(weights, dtype=np.float64))
        n = len(r)
        if x.shape != (n, self.dimensions) or r.shape != (n,) or w.shape != (n,):
            raise ValueError(
                f"expected contexts (n, {self.dimensions}) with n qualities and n weights, "
                f"got {x.shape}, {r.shape} and {w.shape}"
            )
        factors, exponent = split(np.broadcast_to(np.asarray(log2_scale, np.float64), n), arm)
        root = np.sqrt(np.abs(w * factors))[:, None]
        z = np.empty((n, self.dimensions + 2))
        z[:, :1], z[:, -1:] = root, root * r[:, None]
        np.multiply(x, root, out=z[:, 1:-1])
        if not np.isfinite(z).all():
            raise ValueError(f"contexts, qualities and weights of arm {arm!r} must be finite")
        self._add(arm, exponent, gram=_signed_gram(z, w < 0.0))

    def add_usage(self, arm: str, usage: ArrayLike, log2_scale: ArrayLike = 0.0) -> None:
        """Add calls of one arm: usage `(U,)` or `(n, U)`; negated to take them out again.

        A call counts `2^log2_scale`, which is `(n,)` or one number. Raises `ValueError` for another
        shape or values that are not finite.
        """
        rows = np.atleast_2d(np.asarray(usage, dtype=np.float64))
        if rows.ndim != 2 or rows.shape[1] != len(Usage) or not np.isfinite(rows).all():
            raise ValueError(
                f"usage of arm {arm!r} must be finite with {len(Usage)} columns, got {rows.shape}"
            )
        scale = np.broadcast_to(np.asarray(log2_scale, np.float64), len(rows))
        factors, exponent = split(scale, arm)
        self._add(arm, exponent, usage=factors @ rows)

    def merge(self, other: Sums) -> None:
        """Add another shard's sums to these. Raises `ConfigurationError` if dimensions differ."""
        self._require(other.dimensions, "the other shard")
        for arm in other.arms:
            self._add(arm, other._exponent[arm], other._gram[arm], other._usage[arm])

    def as_of(self, clocks: Mapping[str, float]) -> Sums:
        """The sums as a reader sees them when the arms' clocks stand at `clocks`, 0 by default.

        Each arm's sums are divided by 2 to the power of its clock, so that an event of that very
        time counts 1. The clock is taken as no earlier than the newest event: whatever the clocks
        say, no event counts twice as much as another of its time, and nothing overflows.
        """
        read = Sums(self.dimensions)
        for arm in self.arms:
            shift = min(0.0, self._exponent[arm] - clocks.get(arm, 0.0))
            whole = math.floor(shift)
            factor = math.exp2(shift - whole)
            gram = shifted(self._gram[arm] * factor, whole)
            read._add(arm, 0, gram, shifted(self._usage[arm] * factor, whole))
        return read

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
            wide._add(arm, self._exponent[arm], gram, self._usage[arm])
        return wide

    def difference(self, other: Sums) -> float:
        """The largest relative difference, `max|a − b| / max(1, max|b|)`, over arms and blocks.

        The 1 stands for the newest event that either side has seen. Infinite if the dimensions
        differ; an arm missing on one side counts as zeros.
        """
        if other.dimensions != self.dimensions:
            return float("inf")
        return max(
            (
                float(np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(b))))
                for arm in {*self.arms, *other.arms}
                for a, b in zip(self._aligned(arm, other), other._aligned(arm, self), strict=True)
            ),
            default=0.0,
        )

    def arm_to_bytes(self, arm: str) -> bytes:
        """One arm's sums, exactly: a header, the exponent, `G`'s upper triangle and the usage.

        Little-endian float64; `8·((d + 2)·(d + 3)/2 + U) + 20` bytes.
        """
        size = self.dimensions + 2
        gram, usage = self._gram.get(arm, np.zeros((size, size))), self._usage.get(arm)
        upper = gram[_triangle(size)]
        header = _HEADER.pack(_MAGIC, _LAYOUT, len(Usage), self.dimensions)
        header += _EXPONENT.pack(self._exponent.get(arm, 0))
        values = np.concatenate((upper, np.zeros(len(Usage)) if usage is None else usage))
        return header + values.astype("<f8").tobytes()

    @classmethod
    def from_bytes(cls, raw: Mapping[str, bytes], dimensions: int) -> Sums:
        """The sums of these arms; raises as `add_from_bytes` does."""
        sums = cls(dimensions)
        for arm, packed in raw.items():
            sums.add_from_bytes(arm, packed)
        return sums

    def add_from_bytes(self, arm: str, raw: bytes) -> None:
        """Add what `arm_to_bytes` wrote, now, before there were lengths (2) or exponents (1).

        Raises `ConfigurationError` if the bytes are not such a record, or of another dimension.
        """
        exponent, values = self._unpacked(arm, raw)
        size = self.dimensions + 2
        gram = np.zeros((size, size))
        triangle = _triangle(size)
        usage = np.zeros(len(Usage))
        usage[: len(values) - len(triangle[0])] = values[len(triangle[0]) :]
        gram[triangle] = values[: len(triangle[0])]
        self._add(arm, exponent, gram + np.triu(gram, 1).T, usage)

    def _unpacked(self, arm: str, raw: bytes) -> tuple[int, NDArray[np.float64]]:
        magic, layout, columns, dimensions = (
            _HEADER.unpack_from(raw) if len(raw) >= _HEADER.size else (b"", 0, 0, 0)
        )
        if magic != _MAGIC or columns != _COLUMNS.get(layout):
            raise ConfigurationError(
                f"the stored sums of arm {arm!r} are not of layout 1 to {_LAYOUT}: "
                "rebuild them with `metallm rebuild`"
            )
        self._require(dimensions, f"the stored record of arm {arm!r}")
        size = self.dimensions + 2
        start = _HEADER.size + (_EXPONENT.size if layout > 1 else 0)
        expected = 8 * (size * (size + 1) // 2 + columns)
        if len(raw) - start != expected:
            raise ConfigurationError(
                f"the stored sums of arm {arm!r} have {len(raw) - start} bytes instead of "
                f"{expected}: rebuild them with `metallm rebuild`"
            )
        values = np.frombuffer(raw, dtype="<f8", offset=start).astype(np.float64)
        if not np.isfinite(values).all():
            raise ConfigurationError(
                f"the stored sums of arm {arm!r} are not finite: rebuild with `metallm rebuild`"
            )
        return _EXPONENT.unpack_from(raw, _HEADER.size)[0] if layout > 1 else 0, values

    def _require(self, dimensions: int, whose: str) -> None:
        if dimensions != self.dimensions:
            raise ConfigurationError(
                f"{whose} has {dimensions} dimensions where {self.dimensions} are expected: "
                "it was learned with another encoder; set that encoder, or rebuild"
            )

    def _add(
        self,
        arm: str,
        exponent: int,
        gram: NDArray[np.float64] | None = None,
        usage: NDArray[np.float64] | None = None,
    ) -> None:
        if arm not in self._gram:
            size = self.dimensions + 2
            self._gram[arm], self._usage[arm] = np.zeros((size, size)), np.zeros(len(Usage))
            self._exponent[arm] = exponent
        held = self._exponent[arm]
        if exponent > held:
            self._gram[arm] = shifted(self._gram[arm], held - exponent)
            self._usage[arm] = shifted(self._usage[arm], held - exponent)
            self._exponent[arm] = exponent
        for sums, more in ((self._gram, gram), (self._usage, usage)):
            if more is not None:
                sums[arm] += more if exponent >= held else shifted(more, exponent - held)

    def _aligned(self, arm: str, other: Sums) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """One arm's sums in units of the larger exponent of the two sides."""
        if arm not in self._gram:
            return self.gram(arm), self.usage(arm)
        held = self._exponent[arm]
        shift = held - max(held, other._exponent.get(arm, held))
        return shifted(self._gram[arm], shift), shifted(self._usage[arm], shift)


@cache
def _triangle(size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows, columns = np.triu_indices(size)
    return rows, columns


def _signed_gram(z: NDArray[np.float64], negative: NDArray[np.bool_]) -> NDArray[np.float64]:
    """`Σ ±z·zᵀ`, exactly symmetric: numpy computes `ZᵀZ` so, and in half the time of `ZᵀY`."""
    if not negative.any():
        return z.T @ z
    added, removed = z[~negative], z[negative]
    return added.T @ added - removed.T @ removed


def merged(shards: Iterable[Sums], dimensions: int) -> Sums:
    """The sum of shards; empty sums if there are none."""
    whole = Sums(dimensions)
    for shard in shards:
        whole.merge(shard)
    return whole
