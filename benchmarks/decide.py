"""How long a batch of decisions takes, records included.

    python benchmarks/decide.py --queries 500 --arms 5

Contexts are given, so encoding is not in the figures. "constrained" queries carry a model list,
a cost limit and a quality limit; "budgeted" ones are decided in turn, under one budget.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metallm_stream.arms import Catalogue
from metallm_stream.events import Model, Query
from metallm_stream.policy import Published, Sums, chooser, fit, to_records, usage_of_call
from metallm_stream.route import Arrival, Budget, Decided, Pacer, TradeOff, decide

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    """Time batches of plain and of constrained queries."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--arms", type=int, default=5)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    arms = [f"arm-{number}" for number in range(options.arms)]
    for kind, fields in [
        ("plain", {}),
        ("constrained", {"models": tuple(arms[1:]), "max_cost_usd": 0.05, "min_quality": 0.5}),
    ]:
        batch = Batch(arms, options.queries, options.dimensions, fields)
        report(kind, options, median_ms(batch.decide, options.repeats))
    batch = Batch(arms, options.queries, options.dimensions, {})
    pacer = Pacer([Budget("all", 0.02, "query")])
    report("budgeted", options, median_ms(lambda: batch.decide(pacer), options.repeats))


def report(kind: str, options: argparse.Namespace, took_ms: float) -> None:
    """Print what a batch of one kind took."""
    print(
        f"{kind:12} {options.queries} queries x {options.arms} arms: {took_ms:6.2f} ms;"
        f" {took_ms * 1000 / options.queries:.1f} µs a query"
    )


class Batch:
    """A batch of queries with all that is needed to decide it."""

    def __init__(self, arms: list[str], n: int, d: int, fields: dict[str, Any]) -> None:
        self.rng = np.random.default_rng(1)
        self.catalogue = Catalogue()
        for arm in arms:
            model = Model(arm=arm, provider="p", model=arm, context_window_tokens=8_000)
            self.catalogue.apply(arm, model)
        self.published = learned(arms, d, self.rng)
        self.contexts = unit(self.rng.normal(size=(n, d))).astype(np.float32)
        queries = [Query(query_id=f"q{row}", text="words " * 50, **fields) for row in range(n)]
        self.arrivals = [Arrival(query, 0, row, NOW) for row, query in enumerate(queries)]

    def decide(self, pacer: Pacer | None = None) -> list[Decided]:
        """Decide the batch."""
        return decide(
            self.arrivals,
            self.contexts,
            catalogue=self.catalogue,
            published=self.published,
            chooser=chooser(),
            defaults=TradeOff(0.1, 0.0, 10.0),
            rng=self.rng,
            now=NOW,
            encoder="e",
            pacer=pacer,
        )


def learned(arms: list[str], d: int, rng: np.random.Generator) -> Published:
    """A policy with weights for every arm."""
    sums = Sums(d)
    for arm in arms:
        sums.add_quality(arm, unit(rng.normal(size=(300, d))), rng.random(300), np.ones(300))
        sums.add_usage(arm, usage_of_call(cost_usd=float(rng.random() * 0.1), latency_s=1.0))
    made = to_records(fit(sums, arms), sums, policy="p", version=1, published_at=NOW, encoder="e")
    return Published.from_records(*made)


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows at length 1."""
    lengths: NDArray[np.float64] = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / lengths


def median_ms(run: Callable[[], object], repeats: int) -> float:
    """Median CPU time of a call, in ms."""
    spent = []
    for _ in range(repeats):
        begun = time.process_time()
        run()
        spent.append((time.process_time() - begun) * 1000)
    return statistics.median(spent)


if __name__ == "__main__":
    main()
