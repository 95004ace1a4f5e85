"""Decisions and updates a second beside other libraries and the bare matrix products.

    python benchmarks/policy/speed.py --dimensions 32 384 --arms 5 50

CPU time on one BLAS thread; contexts are in each library's own form before the clock starts.
Medians over repeats; `mean µs` of updates includes what is missing from most calls of
MultiTaskRidge: refreshes, which come when events have grown by a twentieth, and the product that
adds 128 events of an arm to its sums at once; "between refreshes" is without the former. A library
without batches is timed one query at a time.

"bare numpy" chooses by the float32 products that cannot be avoided (contexts × weights, contexts ×
projection, and each arm's quadratic form), and learns by `Zᵀ(wZ)` an arm in float64. "service" is
what the services do: choosing is scoring by a published policy and drawing, learning is adding to
the sums; the fit is in `refresh.py`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers import Batch, Contestant, OnDicts, installed
from streams import unit_contexts
from tables import parser, say_versions, show, write
from threadpoolctl import threadpool_limits

from metallm_stream.policy import Published, Sums, chooser, fit, sample, to_records
from metallm_stream.policy.multi_task_ridge import MultiTaskRidge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COMPONENTS = 32
SINGLES = 32
BATCH = 256
Floats = NDArray[np.floating]


class BareNumpy:
    """The matrix products alone."""

    name, batches = "bare numpy", True

    def __init__(self, arms: Sequence[str], d: int) -> None:
        rng, k, r = np.random.default_rng(1), len(arms), min(COMPONENTS, d)
        self._arms = list(arms)
        self._weights = rng.normal(size=(d, k)).astype(np.float32)
        self._projection = rng.normal(size=(d, r)).astype(np.float32)
        self._forms = rng.normal(size=(r, k * r)).astype(np.float32)
        self._grams = [np.zeros((d + 2, d + 2)) for _ in arms]

    def prepare(self, batch: Batch) -> tuple[Floats, list[tuple[int, Floats, Floats]]]:
        """Contexts in float32; for each arm `Z = [1, x, r]` and the weights."""
        z = np.column_stack((np.ones(len(batch.arms)), batch.contexts, batch.rewards))
        names = np.array(batch.arms)
        rows = [(k, z[names == arm]) for k, arm in enumerate(self._arms) if arm in batch.arms]
        parts = [(k, own, np.ones((len(own), 1))) for k, own in rows]
        return batch.contexts.astype(np.float32), parts

    def choose(self, prepared: Any) -> object:  # noqa: ANN401
        """Predictions and leverages."""
        contexts, _ = prepared
        quality = contexts @ self._weights
        low = contexts @ self._projection
        half = (low @ self._forms).reshape(len(low), len(self._arms), low.shape[1])
        return quality, (half @ low[:, :, None])[:, :, 0]

    def learn(self, prepared: Any) -> None:  # noqa: ANN401
        """Accumulation."""
        for k, z, w in prepared[1]:
            self._grams[k] += z.T @ (w * z)


class Arrays:
    """MultiTaskRidge on arrays."""

    name, batches = "MultiTaskRidge, arrays", True

    def __init__(self, arms: Sequence[str], d: int) -> None:
        del d
        self._arms = list(arms)
        self._policy = MultiTaskRidge(seed=1)

    def prepare(self, batch: Batch) -> Batch:
        """Nothing to do."""
        return batch

    def choose(self, prepared: Any) -> object:  # noqa: ANN401
        """The batch at once."""
        return self._policy.pull_many(prepared.contexts, self._arms)

    def learn(self, prepared: Any) -> None:  # noqa: ANN401
        """The batch at once."""
        self._policy.update_many(prepared.arms, prepared.contexts, prepared.rewards)


class Between(Arrays):
    """MultiTaskRidge on arrays, fitted once."""

    name = "between refreshes"

    def __init__(self, arms: Sequence[str], d: int) -> None:
        super().__init__(arms, d)
        self._policy = MultiTaskRidge(refresh_growth=1e9, seed=1)


class Dicts(OnDicts):
    """MultiTaskRidge as a River policy."""

    name = "MultiTaskRidge, dicts"

    def __init__(self, arms: Sequence[str], d: int) -> None:
        del d
        super().__init__(MultiTaskRidge(seed=1), arms)


class Service(Arrays):
    """What router and learner do between two refreshes."""

    name = "service"

    def __init__(self, arms: Sequence[str], d: int) -> None:
        super().__init__(arms, d)
        self._sums = Sums(d)
        self._choose = service_path(arms, d)

    def prepare(self, batch: Batch) -> Any:  # noqa: ANN401
        """Contexts, and each arm's events."""
        names = np.array(batch.arms)
        parts = [
            (arm, batch.contexts[names == arm], batch.rewards[names == arm])
            for arm in sorted(set(batch.arms))
        ]
        return batch.contexts, parts

    def choose(self, prepared: Any) -> object:  # noqa: ANN401
        """The batch at once."""
        return self._choose(prepared[0])

    def learn(self, prepared: Any) -> None:  # noqa: ANN401
        """The batch at once."""
        for arm, contexts, rewards in prepared[1]:
            self._sums.add_quality(arm, contexts, rewards, np.ones(len(rewards)))


def service_path(arms: Sequence[str], d: int) -> Callable[[Floats], object]:
    """A router's choice for contexts `(n, d)` float32 by a policy that came as records."""
    rng, sums, names = np.random.default_rng(1), Sums(d), list(arms)
    for arm in names:
        sums.add_quality(arm, unit_contexts(300, d, rng), rng.random(300), np.ones(300))
    made = to_records(fit(sums, names), sums, policy="p", version=1, published_at=NOW, encoder="e")
    published, rule = Published.from_records(*made), chooser()
    penalties = 0.1 * np.linspace(0.0, 1.0, len(names))

    def choose(contexts: Floats) -> object:
        beliefs = published.scorer.beliefs(contexts, names)
        beliefs = replace(beliefs, utility=beliefs.utility - penalties)
        return sample(rule.probabilities(beliefs, None), rng)

    return choose


def contestants(arms: Sequence[str], d: int) -> list[tuple[Contestant, int]]:
    """Everything to be timed, and how many events it has learned before."""
    ours = [Arrays(arms, d), Between(arms, d), Dicts(arms, d), Service(arms, d)]
    few, many = 4 * BATCH, 80 * BATCH
    warm = [(one, many if type(one) is Arrays else few) for one in ours]
    return [(BareNumpy(arms, d), BATCH), *warm, *((peer, few) for peer in installed(arms, d))]


def drawn(n: int, arms: Sequence[str], d: int, rng: np.random.Generator) -> Batch:
    """Events of arms drawn evenly."""
    contexts = unit_contexts(n, d, rng).astype(np.float32)
    return Batch(contexts, [arms[k] for k in rng.integers(len(arms), size=n)], rng.random(n))


def timed(run: Callable[[], object], budget_s: float, least: int) -> list[float]:
    """CPU seconds of each call, for at least so many calls and until the budget is spent."""
    spent: list[float] = []
    while len(spent) < least or (sum(spent) < budget_s and len(spent) < 200):
        begun = time.process_time()
        run()
        spent.append(time.process_time() - begun)
    return spent


def measure(
    one: Contestant, batches: list[Batch], kind: str, budget_s: float
) -> dict[str, float | str]:
    """Microseconds a query of choosing and of learning."""
    prepared = [one.prepare(batch) for batch in batches]
    n = sum(len(batch.arms) for batch in batches)

    def choose() -> None:
        for item in prepared:
            one.choose(item)

    def learn() -> None:
        for item in prepared:
            one.learn(item)

    chosen, learned = timed(choose, budget_s, 5), timed(learn, budget_s, 5)
    return {
        "by": one.name,
        "kind": kind,
        "choose_us": 1e6 * statistics.median(chosen) / n,
        "learn_us": 1e6 * statistics.median(learned) / n,
        "learn_mean_us": 1e6 * statistics.fmean(learned) / n,
    }


def compare(arms: Sequence[str], d: int, budget_s: float) -> list[dict[str, Any]]:
    """All contestants at one size, one query at a time and in batches."""
    rng = np.random.default_rng(d)
    singles = [drawn(1, arms, d, rng) for _ in range(SINGLES)]
    batch = [drawn(BATCH, arms, d, rng)]
    found: list[dict[str, Any]] = []
    for one, events in contestants(arms, d):
        for _ in range(events // BATCH):
            one.learn(one.prepare(drawn(BATCH, arms, d, rng)))
        found.append(measure(one, singles, "single", budget_s))
        if one.batches:
            found.append(measure(one, batch, "batch", budget_s))
    return [{"d": d, "K": len(arms), **row} for row in found]


def report(d: int, k: int, rows: list[dict[str, Any]]) -> None:
    """One size's table; ratios are to the bare products of the same kind, more is slower."""
    bare = {row["kind"]: row for row in rows if row["by"] == BareNumpy.name}
    columns = ("", "", "decisions/s", "µs", "x bare", "updates/s", "µs", "x bare", "mean µs")
    lines = []
    for row in rows:
        base = bare[row["kind"]]
        cells: list[object] = [row["by"], row["kind"]]
        for what in ("choose_us", "learn_us"):
            cells += [1e6 / row[what], row[what], row[what] / base[what]]
        lines.append([*cells, row["learn_mean_us"]])
    show(f"d = {d}, K = {k}; batches of {BATCH}", columns, lines)


def fastest(rows: list[dict[str, Any]]) -> list[list[object]]:
    """For each size, how many times as many a second the service does as the fastest peer."""
    ours = {"service", *(one.name for one in (Arrays, Between, Dicts, BareNumpy))}
    lines: list[list[object]] = []
    for size in sorted({(row["d"], row["K"]) for row in rows}):
        here = [row for row in rows if (row["d"], row["K"]) == size]
        service = {row["kind"]: row for row in here if row["by"] == Service.name}
        cells: list[object] = [f"d = {size[0]}, K = {size[1]}"]
        for kind in ("single", "batch"):
            for what in ("choose_us", "learn_us"):
                peers = [one for one in here if one["by"] not in ours]
                alike = [one for one in peers if kind == "batch" or one["kind"] == kind]
                best = min(alike, key=lambda one: float(one[what]))
                cells += [best[what] / service[kind][what], best["by"]]
        lines.append(cells)
    return lines


def main() -> None:
    """Time every size; print tables and write JSON."""
    options = parser(__doc__, "speed")
    options.add_argument("--dimensions", type=int, nargs="+", default=[32, 256, 384])
    options.add_argument("--arms", type=int, nargs="+", default=[3, 5, 12, 50])
    options.add_argument("--budget-s", type=float, default=0.3, help="CPU time a figure, at least")
    given = options.parse_args()
    say_versions()
    found: list[dict[str, Any]] = []
    with threadpool_limits(limits=1, user_api="blas"):
        for d in given.dimensions:
            for k in given.arms:
                rows = compare([f"arm-{number}" for number in range(k)], d, given.budget_s)
                report(d, k, rows)
                found += rows
    columns = [f"{what}, {kind}" for kind in ("single", "batch") for what in ("choose", "learn")]
    headings = [heading for column in columns for heading in (column, "fastest peer")]
    show("times as fast as the fastest peer, service", ("", *headings), fastest(found))
    write(given.json, {"batch": BATCH, "components": COMPONENTS, "rows": found})


if __name__ == "__main__":
    main()
