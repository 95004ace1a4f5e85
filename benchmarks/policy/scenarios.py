"""Streams in which something changes: an arm's quality, a price, or which arms there are.

Costs are given as penalties that are known beforehand, so that a new price counts at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from streams import Stream, chances, unit_contexts

DROP = 0.3
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scenario:
    """n queries among K arms, and where something changes.

    Attributes
    ----------
    contexts
        `(n, d)`.
    quality
        What a policy learns, `(n, K)`.
    utility
        What it is measured by, `(n, K)`: expected where the expectation is known.
    penalty
        Weighted cost of each arm, known beforehand, `(n, K)`.
    present
        Which arms can be chosen, `(n, K)`.
    changes
        Name and position of each change.

    """

    name: str
    contexts: Floats
    quality: Floats
    utility: Floats
    penalty: Floats
    present: NDArray[np.bool_]
    changes: tuple[tuple[str, int], ...]

    def arms(self, row: int) -> list[int]:
        """Columns that can be chosen."""
        return [int(k) for k in np.flatnonzero(self.present[row])]


def synthetic(n: int, seed: int) -> Iterator[Scenario]:
    """The three changes where expected qualities are known."""
    rng = np.random.default_rng(seed)
    contexts = unit_contexts(n, 128, rng)
    noise = rng.random((n, 3))
    third, half = n // 3, n // 2
    cost = np.array([1.0, 0.05, 0.05])

    chance = chances(contexts, np.array([0.85, 0.70, 0.50]), rng)
    chance[third : 2 * third, 0] = np.maximum(chance[third : 2 * third, 0] - DROP, 0.0)
    changes = (("drops by 0.3", third), ("recovers", 2 * third))
    yield made("quality", contexts, chance, noise, 0.0 * cost, changes)

    chance = chances(contexts, np.array([0.85, 0.65, 0.50]), rng)
    penalty = np.where(np.arange(n)[:, None] < half, 0.4 * cost, 0.4 * cost * [0.1, 1, 1])
    yield made("price", contexts, chance, noise, penalty, (("falls to a tenth", half),))

    chance = chances(contexts, np.array([0.85, 0.60, 0.50]), rng)
    yield made("new arm", contexts, chance, noise, 0.0 * cost, (("is added", half),), late=0)


def made(
    name: str,
    contexts: Floats,
    chance: Floats,
    noise: Floats,
    penalty: Floats,
    changes: tuple[tuple[str, int], ...],
    late: int | None = None,
) -> Scenario:
    """A scenario of right or wrong answers; one arm may come late, with the first change."""
    penalty = np.broadcast_to(penalty, chance.shape)
    quality = (noise < chance).astype(np.float64)
    present = np.ones(chance.shape, dtype=np.bool_)
    if late is not None:
        present[: changes[0][1], late] = False
    return Scenario(
        f"synthetic, {name}", contexts, quality, chance - penalty, penalty, present, changes
    )


def from_log(stream: Stream, limit: int, seed: int) -> Iterator[Scenario]:
    """The same changes in logged outcomes; the price falls only where there are prices."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(stream.contexts))[:limit]
    contexts, n = stream.contexts[order].astype(np.float64), len(order)
    third, half = n // 3, n // 2
    quality = stream.outcomes.quality[order]
    mean_usd = np.nan_to_num(stream.outcomes.cost_usd).mean(axis=0)
    cost = np.broadcast_to(mean_usd / (mean_usd.max() or 1.0), quality.shape)
    best = int(np.argmax((quality - 0.1 * cost).mean(axis=0)))
    everywhere = np.ones(quality.shape, dtype=np.bool_)

    worse, lost = quality.copy(), rng.random(n) < DROP / quality[:, best].mean()
    worse[third : 2 * third, best] *= ~lost[third : 2 * third]
    changes = (("drops by 0.3", third), ("recovers", 2 * third))
    yield logged_scenario(stream, "quality", contexts, worse, 0.1 * cost, everywhere, changes)

    if stream.priced:
        cheaper = 0.3 * cost.copy()
        cheaper[half:, int(np.argmax(mean_usd))] /= 10
        where = (("falls to a tenth", half),)
        yield logged_scenario(stream, "price", contexts, quality, cheaper, everywhere, where)

    late = everywhere.copy()
    late[:half, best] = False
    where = (("is added", half),)
    yield logged_scenario(stream, "new arm", contexts, quality, 0.1 * cost, late, where)


def logged_scenario(
    stream: Stream,
    name: str,
    contexts: Floats,
    quality: Floats,
    penalty: Floats,
    present: NDArray[np.bool_],
    changes: tuple[tuple[str, int], ...],
) -> Scenario:
    """A scenario measured by the outcomes themselves."""
    utility = quality - penalty
    title = f"{stream.name.partition('_')[0]}, {name}"
    return Scenario(title, contexts, quality, utility, penalty, present, changes)
