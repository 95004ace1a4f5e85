"""What forgetting is worth when the best arm collapses, and what it costs when nothing changes.

    python benchmarks/policy/forgetting.py --seeds 6

Three arms in contexts of 16 dimensions, a query a second, every answer judged. In the stream that
changes, the best arm's quality falls by half at query 3,000. Mean expected utility by stage.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy import (
    DEFAULT_CHOOSER,
    Forgetting,
    HalfLife,
    Shift,
    Sums,
    chooser,
    fit,
    sample,
)
from metallm_stream.policy.drift import ArmWatch, Residual, ResidualWatch

ARMS = ("a", "b", "c")
DIMENSIONS, REFRESH, MARGIN_S = 16, 20, 10
STAGES = (0, 1_000, 3_000, 3_500, 4_000, 6_000)
START = datetime(2026, 1, 1, tzinfo=UTC)
# Half-life in queries, detector, factor.
MEMORIES: dict[str, tuple[float | None, str | None, float]] = {
    "keeps all": (None, None, 1.0),
    "half-life 500": (500.0, None, 1.0),
    "half-life 2,000": (2_000.0, None, 1.0),
    "adwin 0.2": (None, "adwin", 0.2),
    "adwin 0.05": (None, "adwin", 0.05),
    "adwin 0.01": (None, "adwin", 0.01),
    "page-hinkley 0.05": (None, "page-hinkley", 0.05),
    "both, 2,000 and 0.05": (2_000.0, "adwin", 0.05),
}


class Learner:
    """Sums under clocks, and watches that may add shifts to them."""

    def __init__(self, half_life_s: float | None, detector: str | None, factor: float) -> None:
        self.half_lives = [HalfLife(START, half_life_s)]
        self.shifts: list[Shift] = []
        self.forgetting = Forgetting(self.half_lives)
        self.sums = Sums(DIMENSIONS)
        self._watch = None if detector is None else ResidualWatch(detector)
        self._held: dict[str, ArmWatch] = {}
        self._factor = factor

    def learn(
        self,
        arm: str,
        times: list[datetime],
        contexts: NDArray[np.float64],
        rewards: NDArray[np.float64],
        predicted: NDArray[np.float64],
    ) -> None:
        """Take in judged answers of one arm."""
        clock = self.forgetting.clock(arm)
        scales = [clock.log2_weight(time) for time in times]
        self.sums.add_quality(arm, contexts, rewards, np.ones(len(rewards)), scales)
        if self._watch is None:
            return
        off = rewards - np.clip(predicted, 0, 1)
        seen = [Residual(arm, time, float(value)) for time, value in zip(times, off, strict=True)]
        last = clock.jumps[-1][0] if clock.jumps else None
        self._held[arm], drift = self._watch.observe(self._held.get(arm), seen, times[-1], last)
        if drift is not None:
            effective_at = times[-1] + timedelta(seconds=MARGIN_S)
            self.shifts.append(Shift(arm, effective_at, self._factor))
            self.forgetting = Forgetting(self.half_lives, self.shifts)


def run(
    learner: Learner, contexts: NDArray[np.float64], utilities: NDArray[np.float64], seed: int
) -> NDArray[np.float64]:
    """Expected utility of each decision, `(n,)`."""
    rng, choice, expected = np.random.default_rng(seed), chooser(DEFAULT_CHOOSER), []
    for begin in range(0, len(contexts), REFRESH):
        rows = np.arange(begin, min(begin + REFRESH, len(contexts)))
        times = [START + timedelta(seconds=int(row)) for row in rows]
        clocks = learner.forgetting.reading(ARMS, times[0])
        beliefs = fit(learner.sums.as_of(clocks), ARMS).scorer().beliefs(contexts[rows], ARMS)
        shares = choice.probabilities(beliefs, np.ones(beliefs.utility.shape, dtype=np.bool_))
        chosen = sample(shares, rng)
        expected.append(np.sum(shares * utilities[rows], axis=1))
        for column, arm in enumerate(ARMS):
            own = np.flatnonzero(chosen == column)
            if len(own):
                learner.learn(
                    arm,
                    [times[place] for place in own],
                    contexts[rows[own]],
                    utilities[rows[own], column],
                    beliefs.utility[own, column],
                )
    return np.concatenate(expected)


def world(seed: int, *, falls: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Contexts `(n, d)` and what each arm brings, 0 or 1, `(n, K)`."""
    rng = np.random.default_rng(seed)
    weights, n = rng.normal(size=(DIMENSIONS, len(ARMS))), STAGES[-1]
    contexts = rng.normal(size=(n, DIMENSIONS))
    contexts /= np.linalg.norm(contexts, axis=1, keepdims=True)
    chance = 1 / (1 + np.exp(-(np.linspace(0.2, 1.4, len(ARMS)) + 2 * contexts @ weights)))
    if falls:
        chance[STAGES[2] :, -1] /= 2
    return contexts, (rng.random(chance.shape) < chance).astype(np.float64)


def main() -> None:
    """Print mean utilities by stage, for both streams."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    for falls in (True, False):
        print("the best arm falls at 3,000" if falls else "nothing changes")
        print(
            f"{'queries':22}" + "".join(f"{f'to {end:,}':>10}" for end in STAGES[1:]) + "  shifts"
        )
        found, shifts = defaultdict(list), defaultdict(int)
        for seed in range(options.seeds):
            contexts, utilities = world(seed, falls=falls)
            for name, memory in MEMORIES.items():
                learner = Learner(*memory)
                got = run(learner, contexts, utilities, seed)
                found[name].append([float(got[a:b].mean()) for a, b in pairwise(STAGES)])
                shifts[name] += len(learner.shifts)
        for name, rows in found.items():
            means = "".join(f"{value:10.4f}" for value in np.mean(rows, axis=0))
            print(f"{name:22}{means}{shifts[name] / options.seeds:8.2f}")


if __name__ == "__main__":
    main()
