"""How soon a drop of quality is noticed, against false alarms on steady streams.

    python benchmarks/policy/drift_alarms.py --drop 0.3

Residuals of right-or-wrong answers of an arm of quality 0.5 or 0.8. Delays are counted in judged
answers of the arm after the drop, which comes at the 600th.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN, PageHinkley

STEADY, BEFORE, AFTER = 20_000, 600, 600
DETECTORS: dict[str, Callable[[], Any]] = {
    "adwin 0.002": lambda: ADWIN(delta=0.002, clock=8),
    "adwin 0.02": lambda: ADWIN(delta=0.02, clock=8),
    "adwin 0.05": lambda: ADWIN(delta=0.05, clock=8),
    "page-hinkley 0.05/20": lambda: PageHinkley(delta=0.05, threshold=20.0),
    "page-hinkley 0.1/10": lambda: PageHinkley(delta=0.1, threshold=10.0),
    "page-hinkley 0.15/8": lambda: PageHinkley(delta=0.15, threshold=8.0),
    "page-hinkley 0.15/10": lambda: PageHinkley(delta=0.15, threshold=10.0),
    "page-hinkley 0.15/12": lambda: PageHinkley(delta=0.15, threshold=12.0),
}


def main() -> None:
    """Print a line for each detector."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--drop", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, default=100)
    options = parser.parse_args()
    print(f"{'detector':22}{'false alarms':>14}{'delay':>9}{'delay':>9}{'missed':>9}")
    print(f"{'':22}{'in 10,000':>14}{'median':>9}{'90 %':>9}{'of all':>9}")
    for name, make in DETECTORS.items():
        alarms, steady, delays, missed = 0, 0, [], 0
        for seed in range(options.seeds):
            rng = np.random.default_rng(seed)
            for quality in (0.5, 0.8):
                alarms += len(alarms_of(make(), residuals(rng, STEADY, quality, quality)))
                before = residuals(rng, BEFORE, quality, quality)
                after = residuals(rng, AFTER, quality - options.drop, quality)
                found = alarms_of(make(), np.concatenate((before, after)))
                alarms += sum(place < BEFORE for place in found)
                steady += STEADY + BEFORE
                seen = [place - BEFORE for place in found if place >= BEFORE]
                delays += seen[:1]
                missed += not seen
        print(
            f"{name:22}{1e4 * alarms / steady:14.2f}{np.median(delays):9.0f}"
            f"{np.percentile(delays, 90):9.0f}{missed / (2 * options.seeds):9.1%}"
        )


def residuals(
    rng: np.random.Generator, n: int, quality: float, predicted: float
) -> NDArray[np.float64]:
    """Quality, 0 or 1, less what was predicted."""
    right: NDArray[np.float64] = (rng.random(n) < quality) - predicted
    return right


def alarms_of(detector: Any, values: NDArray[np.float64]) -> list[int]:  # noqa: ANN401 - River's
    """Positions at which a detector raises an alarm."""
    found = []
    for place, value in enumerate(values):
        detector.update(value)
        if detector.drift_detected:
            found.append(place)
    return found


if __name__ == "__main__":
    main()
