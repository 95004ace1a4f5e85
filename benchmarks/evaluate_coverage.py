"""How often the intervals of off-policy evaluation hold the truth, on logs of known truth.

    python -m benchmarks.evaluate_coverage --logs 2000 --decisions 4000

Each line is a logging policy (one that stays, two that learn while they log), a target and the
median number of effective decisions, and for each estimator the share of logs whose nominal 95 %
interval holds the target's true value, and the median width. The standard error of a share is
0.5 % at 2,000 logs. "equal" is the hard case: arms of equal value, between which a learning
policy never settles.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.synthetic_logs import LOGGERS, coverage, simulate

SUCCESS = {
    "differ": np.array([[0.9, 0.6, 0.5], [0.5, 0.6, 0.8], [0.7, 0.75, 0.7]]),
    "equal": np.full((3, 3), 0.7),
}
CHUNK = 200


def main() -> None:
    """Simulate, evaluate, print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--logs", type=int, default=1_000)
    parser.add_argument("--decisions", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    options = parser.parse_args()
    found = [
        row
        for world in SUCCESS
        for logger in LOGGERS
        for row in rows(world, logger, options.logs, options.decisions, options.seed)
    ]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    names = list(found[0]["estimators"])
    print(f"{'arms':7}{'logging':15}{'target':10}{'effective':>9}", *(f"{n:>16}" for n in names))
    for row in found:
        cells = [
            f"{one['coverage']:8.1%} ±{one['width'] / 2:.3f}" for one in row["estimators"].values()
        ]
        head = f"{row['world']:7}{row['logger']:15}{row['target']:10}{row['effective']:9.0f}"
        print(head, *(f"{cell:>16}" for cell in cells))


def rows(world: str, logger: str, logs: int, decisions: int, seed: int) -> list[dict[str, Any]]:
    """One a target; logs are simulated in chunks that fit into memory."""
    rng = np.random.default_rng(seed)
    parts: dict[str, list[Any]] = {}
    for start in range(0, logs, CHUNK):
        size = min(CHUNK, logs - start)
        made = simulate(SUCCESS[world], LOGGERS[logger], decisions=decisions, logs=size, rng=rng)
        for target, aim in made.aims().items():
            parts.setdefault(target, []).append((size, *coverage(made, aim)))
    return [
        {
            "world": world,
            "logger": logger,
            "target": target,
            "effective": mean([(size, effective) for size, _, effective in found]),
            "estimators": {
                name: {
                    field: mean(
                        [(size, asdict(covered[name])[field]) for size, covered, _ in found]
                    )
                    for field in ("coverage", "width", "bias")
                }
                for name in found[0][1]
            },
        }
        for target, found in parts.items()
    ]


def mean(weighted: list[tuple[int, float]]) -> float:
    """The mean of chunks' figures by their sizes."""
    return sum(size * value for size, value in weighted) / sum(size for size, _ in weighted)


if __name__ == "__main__":
    main()
