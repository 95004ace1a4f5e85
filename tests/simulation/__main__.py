"""Live through many seeded histories: `python -m tests.simulation --histories 100000 --seed 0`.

Exits with 1, and the shortest failing history, at the first that breaks a promise.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.history import drawn, lived, told


def main() -> int:
    """Run the histories of consecutive seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began, steps = time.monotonic(), 0
    for seed in range(arguments.seed, arguments.seed + arguments.histories):
        history = drawn(seed)
        steps += len(history)
        if lived(seed, history) is not None:
            sys.stdout.write(told(seed, history) + "\n")
            return 1
    rate = arguments.histories / (time.monotonic() - began)
    sys.stdout.write(
        f"{arguments.histories} histories, {steps} steps, {rate:.0f} histories/s: "
        "all promises kept\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
