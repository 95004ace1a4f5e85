"""How many queries a change costs: an arm gets worse and better, a price falls, an arm arrives.

    python benchmarks/policy/change.py --seeds 10
    python benchmarks/policy/change.py --data FOLDER --drift adwin

Policies start cold on contexts of 128 dimensions, one query at a time, each judged at once. Costs
are given to all of them as the same penalties, so that a new price is known with the next query.
The optimum is the best fixed arm of the stretch after a change, known in hindsight; "until" is the
number of queries until the mean utility of the next `--window` reaches 90 % of it (median of seeds;
"never" where most do not), "lost" the utility lost to the optimum in `--after` queries, "staying"
what the arm that was best before is worth in parts of the optimum: near 1, nothing was to be found.
On synthetic streams utilities are expected ones, without the noise of the outcomes.

ParetoBandit runs with its default exploration and forgetting, and with ten times as much
exploration, on 25 whitened principal components of the very contexts, and a constant.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from peers import ParetoBandit
from scenarios import Scenario, from_log, synthetic
from streams import add_options, logged, without_unpriced
from tables import parser, say_versions, show, write
from threadpoolctl import threadpool_limits

from metallm_stream.policy.multi_task_ridge import MultiTaskRidge

ENOUGH = 0.9
COMPONENTS = 25
Floats = NDArray[np.float64]


class Policy(Protocol):
    """What is compared: chooses a column, and learns."""

    def choose(self, row: int) -> int:
        """The column chosen for a query."""
        ...

    def learn(self, row: int, column: int) -> None:
        """Take in the quality of a choice."""
        ...


class Ours:
    """MultiTaskRidge, with a drift detector where it takes one."""

    def __init__(self, scenario: Scenario, seed: int, drift: str | None) -> None:
        self._scenario = scenario
        self._policy = MultiTaskRidge(seed=seed, **drift_keyword(drift))

    def choose(self, row: int) -> int:
        """As `pull_many` does."""
        columns = self._scenario.arms(row)
        pulls = self._policy.pull_many(
            self._scenario.contexts[row : row + 1],
            [str(k) for k in columns],
            penalties=self._scenario.penalty[row, columns],
        )
        return columns[int(pulls.columns[0])]

    def learn(self, row: int, column: int) -> None:
        """As `update_many` does."""
        context, quality = self._scenario.contexts[row : row + 1], self._scenario.quality
        self._policy.update_many([str(column)], context, quality[row, [column]])


class Peer:
    """ParetoBandit on whitened components."""

    def __init__(self, scenario: Scenario, alpha: float | None) -> None:
        self._scenario = scenario
        self._contexts = whitened(scenario.contexts)
        first = [str(k) for k in scenario.arms(0)]
        self._policy = ParetoBandit(first, self._contexts.shape[1], alpha)

    def choose(self, row: int) -> int:
        """New arms are added before."""
        arms = [str(k) for k in self._scenario.arms(row)]
        penalties = {arm: float(self._scenario.penalty[row, int(arm)]) for arm in arms}
        return int(self._policy.pull(self._contexts[row], arms, penalties))

    def learn(self, row: int, column: int) -> None:
        """One event."""
        quality = float(self._scenario.quality[row, column])
        self._policy.learn([(str(column), self._contexts[row], quality)])


def drift_keyword(drift: str | None) -> dict[str, Any]:
    """The detector, if this version of the policy takes one."""
    takes = "drift" in inspect.signature(MultiTaskRidge).parameters
    return {"drift": drift} if takes and drift else {}


def whitened(contexts: Floats) -> Floats:
    """The first principal components at unit variance, and a constant 1."""
    centred = contexts - contexts.mean(axis=0)
    rows, _, _ = np.linalg.svd(centred, full_matrices=False)
    scaled = rows[:, :COMPONENTS] * np.sqrt(len(contexts) - 1)
    return np.column_stack((scaled, np.ones(len(contexts))))


def run(scenario: Scenario, policy: Policy) -> Floats:
    """Utility of each choice, `(n,)`."""
    columns = np.zeros(len(scenario.contexts), dtype=np.int64)
    for row in range(len(columns)):
        columns[row] = policy.choose(row)
        policy.learn(row, int(columns[row]))
    return scenario.utility[np.arange(len(columns)), columns]


def judged(scenario: Scenario, got: Floats, window: int, after: int) -> list[dict[str, Any]]:
    """For each change: queries until enough, what was lost, what staying was worth."""
    starts = [0, *(start for _, start in scenario.changes), len(got)]
    found = []
    for (change, start), before, end in zip(scenario.changes, starts, starts[2:], strict=False):
        known = scenario.present[before]
        earlier = np.where(known, scenario.utility[before:start].mean(axis=0), -np.inf)
        later = scenario.utility[start:end].mean(axis=0)
        best = float(later.max())
        means = np.convolve(got[start:end], np.ones(window) / window, mode="valid")
        enough = np.flatnonzero(means >= ENOUGH * best)
        upto = min(start + after, end)
        found.append(
            {
                "change": change,
                "until": int(enough[0]) if len(enough) else None,
                "lost": float((best - got[start:upto]).sum()),
                "staying": float(later[int(np.argmax(earlier))]) / best,
                "before": float(got[before:start][-window:].mean()),
                "optimum": best,
            }
        )
    return found


def contestants(scenario: Scenario, seed: int, given: argparse.Namespace) -> dict[str, Policy]:
    """Ours, and ParetoBandit where it is installed."""
    ours = " ".join(["ours", *drift_keyword(given.drift).values()])
    found: dict[str, Policy] = {ours: Ours(scenario, seed, given.drift)}
    with suppress(ModuleNotFoundError):
        found |= {"paretobandit": Peer(scenario, None), "paretobandit x10": Peer(scenario, 0.1)}
    return found


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over seeds: the median number of queries, and means of the rest."""
    until = [np.inf if one["until"] is None else float(one["until"]) for one in found]
    middle = float(np.median(until))
    means = {
        name: float(np.mean([one[name] for one in found]))
        for name in ("lost", "staying", "before", "optimum")
    }
    failed = int(np.isinf(until).sum())
    return {"until": middle if np.isfinite(middle) else None, "failed": failed, **means}


def scenarios(given: argparse.Namespace) -> Iterator[tuple[int, Scenario]]:
    """All of them, seed by seed."""
    streams = [without_unpriced(stream) if stream.priced else stream for stream in logged(given)]
    for seed in range(given.seeds):
        for scenario in synthetic(given.queries, seed):
            yield seed, scenario
        for stream in streams:
            for scenario in from_log(stream, given.queries, seed):
                yield seed, scenario


def main() -> None:
    """Run every policy through every change; print a table and write JSON."""
    options = parser(__doc__, "change")
    add_options(options)
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--queries", type=int, default=3_000)
    options.add_argument("--window", type=int, default=100)
    options.add_argument("--after", type=int, default=500)
    options.add_argument("--drift", default="adwin", help="passed to our policy if it takes it")
    given = options.parse_args()
    if given.queries < 3 * given.window:
        options.error(f"--queries {given.queries}: three stretches of a window need more")
    say_versions()
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    with threadpool_limits(limits=1, user_api="blas"):
        for seed, scenario in scenarios(given):
            for name, policy in contestants(scenario, seed, given).items():
                got = run(scenario, policy)
                for one in judged(scenario, got, given.window, given.after):
                    key = (scenario.name, one["change"], name)
                    found.setdefault(key, []).append(one)
    rows = [
        {"scenario": key[0], "change": key[1], "by": key[2], **summary(ones)}
        for key, ones in found.items()
    ]
    columns = ("stream", "change", "by", "until", "failed", "lost", "staying", "before", "optimum")
    lines = [
        [
            row["scenario"],
            row["change"],
            row["by"],
            "never" if row["until"] is None else row["until"],
        ]
        + [row[name] for name in ("failed", "lost", "staying", "before", "optimum")]
        for row in rows
    ]
    show(f"{given.seeds} seeds, {given.queries:,} queries", columns, lines)
    write(given.json, {"seeds": given.seeds, "queries": given.queries, "rows": rows})


if __name__ == "__main__":
    main()
