"""What a right and a wrong prior are worth: mean utility by stage, beside a cold start.

    python benchmarks/policy/warm_start.py --logged 300 --weight 0.1 --limit 50

A synthetic stream of three arms whose quality depends on the context. The right prior is logged
outcomes of the same arms; the wrong one gives each arm the outcomes of another.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from metallm_stream.evaluate import LoggedQuery, prior, prior_weight
from metallm_stream.evaluate.warm_start import DEFAULT_LIMIT, DEFAULT_WEIGHT
from metallm_stream.policy import DEFAULT_CHOOSER, Sums, chooser, fit, merged, sample

ARMS = ("a", "b", "c")
DIMENSIONS = 16
STAGES = (0, 200, 1_000, 2_000, 4_000, 6_000)


class World:
    """Three arms with logistic qualities, one a little better than the next for most queries."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._weights = self._rng.normal(size=(DIMENSIONS, len(ARMS)))

    def draw(self, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Contexts `(n, d)` of unit norm, and what each arm brings, 0 or 1, `(n, K)`."""
        contexts = self._rng.normal(size=(n, DIMENSIONS))
        contexts /= np.linalg.norm(contexts, axis=1, keepdims=True)
        logits = np.linspace(0.2, 1.4, len(ARMS)) + 2 * contexts @ self._weights
        chance = 1 / (1 + np.exp(-logits))
        return contexts, (self._rng.random(chance.shape) < chance).astype(np.float64)


def priors(world: World, n: int, weight: float, limit: float) -> dict[str, Sums | None]:
    """No prior, and the two from n logged queries."""
    contexts, utilities = world.draw(n)
    found: dict[str, Sums | None] = {"cold": None}
    for name, columns in (("right", (0, 1, 2)), ("wrong", (2, 1, 0))):
        logged = [
            LoggedQuery.model_validate(
                {
                    "query_id": str(row),
                    "text": "",
                    "outcomes": {
                        arm: {"quality": utilities[row, column]}
                        for arm, column in zip(ARMS, columns, strict=True)
                    },
                }
            )
            for row in range(n)
        ]
        found[name] = prior(logged, contexts, prior_weight(logged, weight, limit))
    return found


def utilities_from(
    start: Sums | None,
    contexts: NDArray[np.floating],
    utilities: NDArray[np.float64],
    arms: Sequence[str],
    *,
    rng: np.random.Generator,
    rule: str = DEFAULT_CHOOSER,
    refresh: int = 20,
) -> NDArray[np.float64]:
    """Expected utility of each of n decisions, `(n,)`, of a policy that begins with some sums.

    Parameters
    ----------
    start
        A prior, or None for a cold start.
    contexts, utilities
        `(n, d)`, and what each of K arms would have brought, `(n, K)`; the chosen arm's is learned.
    arms
        Names of the K arms.
    rng
        Draws the choices.
    rule
        The rule of choice.
    refresh
        Queries between two fits.

    """
    n, d = contexts.shape
    choice, live = chooser(rule), Sums(d)
    expected = np.zeros(n)
    for begin in range(0, n, refresh):
        rows = slice(begin, begin + refresh)
        fitted = fit(merged([live] if start is None else [live, start], d), arms)
        beliefs = fitted.scorer().beliefs(contexts[rows], arms)
        shares = choice.probabilities(beliefs, np.ones(beliefs.utility.shape, dtype=np.bool_))
        chosen = sample(shares, rng)
        expected[rows] = np.sum(shares * utilities[rows], axis=1)
        for column, arm in enumerate(arms):
            own = np.flatnonzero(chosen == column)
            if len(own):
                rewards = utilities[rows][own, column]
                live.add_quality(arm, contexts[rows][own], rewards, np.ones(len(own)))
    return expected


def main() -> None:
    """Print mean utilities over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--logged", type=int, default=300)
    parser.add_argument("--weight", type=float, default=DEFAULT_WEIGHT)
    parser.add_argument("--limit", type=float, default=DEFAULT_LIMIT)
    parser.add_argument("--rule", default=DEFAULT_CHOOSER)
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    found: dict[str, list[list[float]]] = {}
    for seed in range(options.seeds):
        world = World(seed)
        starts = priors(world, options.logged, options.weight, options.limit)
        contexts, utilities = world.draw(STAGES[-1])
        for name, start in starts.items():
            rng = np.random.default_rng(seed)
            got = utilities_from(start, contexts, utilities, ARMS, rng=rng, rule=options.rule)
            stages = pairwise(STAGES)
            found.setdefault(name, []).append([float(got[a:b].mean()) for a, b in stages])
    print("queries  " + "".join(f"{f'to {end:,}':>10}" for end in STAGES[1:]))
    for name, rows in found.items():
        print(f"{name:9}" + "".join(f"{value:10.4f}" for value in np.mean(rows, axis=0)))


if __name__ == "__main__":
    main()
