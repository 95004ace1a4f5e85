"""How well budgets hold on logged outcomes, with late costs and restarts, and what they cost.

    python benchmarks/policy/budget.py outcomes.jsonl.gz more.jsonl --json out/budget.json

Files are in the format of `metallm replay`. Each is shuffled and replayed through the default
policy and the real pacer, as the service has them, under budgets of several shares of what the
dearest arm costs on average. Costs and labels become known 25 to 50 queries later, in the middle
third of the stream 50 to 500 later; the account is published every 20 queries; the router is
restarted from the account and the tail of its decisions at a third, a half and two thirds.

`worst` is the largest spend of any 500 queries after the first 200, as a share of their budget.
`mix` is the best quality of any two arms mixed to cost the budget, known in hindsight; `fixed` that
of the best single arm that the budget can pay for; `free` the policy's without any budget. They are
of the second half. `--peer paretobandit` runs the same policy under the pacer of the package
`paretobandit`, with its defaults; it has to be installed, and keeps its state over restarts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metallm_stream.encode import DEFAULT_ENCODER, load_encoder
from metallm_stream.evaluate import Spending, read_outcomes
from metallm_stream.policy.multi_task_ridge import MultiTaskRidge
from metallm_stream.route import SoleAccount

LATEST = 500  # queries after which any cost is known
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Log:
    """Outcomes of n queries under K arms whose costs are known."""

    name: str
    arms: tuple[str, ...]
    quality: Floats
    cost_usd: Floats
    contexts: NDArray[np.float32]

    def shuffled(self, seed: int, limit: int) -> Log:
        """The same queries in another order, at most `limit` of them."""
        rows = np.random.default_rng(seed).permutation(len(self.contexts))[:limit]
        return Log(
            self.name, self.arms, self.quality[rows], self.cost_usd[rows], self.contexts[rows]
        )


@dataclass(frozen=True)
class Figures:
    """What one replay came to."""

    worst: float
    spend: float
    quality: float
    free: float
    fixed: float
    mix: float


class Service:
    """Policy and pacer as the services run them; without a budget the policy alone."""

    def __init__(self, log: Log, amount_usd: float | None, seed: int) -> None:
        self._log = log
        self._account = None if amount_usd is None else SoleAccount(amount_usd)
        self._policy = MultiTaskRidge(seed=seed)
        self._sums = np.zeros(len(log.arms))
        self._calls = np.zeros(len(log.arms))

    def choose(self, row: int) -> int:
        """The arm's column for the query at `row`."""
        known = self._calls > 0
        mean = self._sums / np.maximum(self._calls, 1)
        expected = np.where(known, mean, mean.max())
        penalties, allowed = self._paced(expected, known)
        context = self._log.contexts[row : row + 1]
        pulls = self._policy.pull_many(
            context, self._log.arms, penalties=penalties, allowed=allowed[None]
        )
        column = int(pulls.columns[0])
        if self._account is not None:
            self._account.reserve(float(expected[column]))
        return column

    def learn(self, row: int, column: int) -> None:
        """Cost and quality of an earlier choice have become known."""
        cost_usd = float(self._log.cost_usd[row, column])
        self._sums[column] += cost_usd
        self._calls[column] += 1
        self._policy.update_many(
            [self._log.arms[column]],
            self._log.contexts[row : row + 1],
            self._log.quality[row : row + 1, column],
        )
        if self._account is not None:
            self._account.book(row, cost_usd)

    def restart(self) -> None:
        """The router was killed, and knows the account and its decisions' tail."""
        if self._account is not None:
            self._account.restart()

    def _paced(self, expected: Floats, known: Mask) -> tuple[Floats, Mask]:
        """What is subtracted from each arm's expected quality, and who is allowed, `(K,)`."""
        if self._account is None:
            return np.zeros(len(expected)), np.ones(len(expected), dtype=np.bool_)
        weight, fits = self._account.limit(expected, known)
        return weight * expected / (expected.max() or 1.0), fits


class ParetoBandit(Service):
    """The same policy under the adaptive pacer of `paretobandit`."""

    def __init__(self, log: Log, amount_usd: float, seed: int) -> None:
        super().__init__(log, None, seed)
        self._peer: Any = import_module("pareto_bandit.budget_pacer").BudgetPacer(amount_usd)

    def learn(self, row: int, column: int) -> None:
        """As before, and the peer hears of the cost."""
        super().learn(row, column)
        self._peer.observe(float(self._log.cost_usd[row, column]))

    def _paced(self, expected: Floats, known: Mask) -> tuple[Floats, Mask]:
        dearest = float(expected.max()) or 1.0
        relative = dict(zip(self._log.arms, (expected / dearest).tolist(), strict=True))
        penalties = self._peer.get_extra_cost_penalties(relative)
        ceiling = self._peer.get_cost_ceiling_per_1k(dearest)
        allowed = ~known | (expected <= (np.inf if ceiling is None else ceiling))
        if not allowed.any():
            allowed[int(expected.argmin())] = True
        return np.array([penalties[arm] for arm in self._log.arms]), allowed


def replayed(log: Log, runner: Service, seed: int) -> NDArray[np.int64]:
    """The columns chosen on the whole log."""
    n = len(log.contexts)
    rng = np.random.default_rng((seed, 1))
    due: list[list[int]] = [[] for _ in range(n + LATEST + 1)]
    columns = np.zeros(n, dtype=np.int64)
    for row in range(n):
        if row in (n // 3, n // 2, 2 * n // 3):
            runner.restart()
        for earlier in due[row]:
            runner.learn(earlier, int(columns[earlier]))
        columns[row] = runner.choose(row)
        is_late = n // 3 <= row < 2 * n // 3
        delay = int(rng.integers(50, LATEST + 1)) if is_late else int(rng.integers(25, 51))
        due[row + delay].append(row)
    return columns


def figures(log: Log, columns: NDArray[np.int64], free: float, amount_usd: float) -> Figures:
    """Spend over windows and quality of a replay beside its baselines."""
    rows = np.arange(len(columns))
    spending = Spending.of(log.cost_usd[rows, columns], amount_usd)
    half = len(rows) // 2
    fixed, mix = affordable(log.quality[half:].mean(0), log.cost_usd[half:].mean(0), amount_usd)
    quality = float(log.quality[rows, columns][half:].mean())
    worst = np.nan if spending.worst_window is None else spending.worst_window
    return Figures(worst, spending.share, quality, free, fixed, mix)


def affordable(quality: Floats, cost_usd: Floats, amount_usd: float) -> tuple[float, float]:
    """Best mean quality within the amount: of one arm, and of two that are mixed."""
    cheap = np.flatnonzero(cost_usd <= amount_usd)
    fixed = max((float(quality[k]) for k in cheap), default=float(quality[cost_usd.argmin()]))
    mix = fixed
    for low in cheap:
        for high in np.flatnonzero(cost_usd > amount_usd):
            share = (amount_usd - cost_usd[low]) / (cost_usd[high] - cost_usd[low])
            mix = max(mix, float((1 - share) * quality[low] + share * quality[high]))
    return fixed, mix


def read(path: Path, encoder: str) -> Log:
    """A file's outcomes, without arms whose cost is not known."""
    outcomes = read_outcomes(path).priced(cost_weight=1.0)
    contexts = load_encoder(encoder).encode(outcomes.texts)
    return Log(path.name, outcomes.arms, outcomes.quality, outcomes.cost_usd, contexts)


def main() -> None:
    """Replay every file under every share and seed; print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=4_000)
    parser.add_argument("--encoder", default=DEFAULT_ENCODER)
    parser.add_argument("--peer", choices=["paretobandit"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runners: dict[str, Callable[[Log, float, int], Service]] = {"service": Service}
    if options.peer:
        runners[options.peer] = ParetoBandit
    print(f"{'file':24} {'share':>5} {'by':12} {'worst':>6} {'spend':>6} ", end="")
    print(f"{'quality':>7} {'free':>6} {'fixed':>6} {'mix':>6}")
    rows = []
    for path in options.files:
        whole = read(path, options.encoder)
        if not whole.cost_usd.any():
            parser.error(f"{path.name}: no arm has a cost; leave the file out")
        logs = [whole.shuffled(seed, options.limit) for seed in range(options.seeds)]
        free = [free_quality(log, seed) for seed, log in enumerate(logs)]
        for share in options.shares:
            for name, runner in runners.items():
                found = [one(log, seed, share, runner, free[seed]) for seed, log in enumerate(logs)]
                rows.append({"file": path.name, "share": share, "by": name, **summary(found)})
                show(rows[-1])
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def free_quality(log: Log, seed: int) -> float:
    """Mean quality of the second half without a budget."""
    columns = replayed(log, Service(log, None, seed), seed)
    rows = np.arange(len(columns))
    return float(log.quality[rows, columns][len(rows) // 2 :].mean())


def one(
    log: Log, seed: int, share: float, runner: Callable[[Log, float, int], Service], free: float
) -> Figures:
    """One replay under a share of the dearest arm's mean cost."""
    amount_usd = share * float(log.cost_usd.mean(axis=0).max())
    columns = replayed(log, runner(log, amount_usd, seed), seed)
    return figures(log, columns, free, amount_usd)


def summary(found: list[Figures]) -> dict[str, float]:
    """The worst window of all replays, and means of the rest."""
    every = [asdict(item) for item in found]
    means = {name: float(np.mean([item[name] for item in every])) for name in every[0]}
    return means | {"worst": max(item.worst for item in found)}


def show(row: dict[str, object]) -> None:
    """One line of the table."""
    print(f"{str(row['file'])[:24]:24} {row['share']:>5} {row['by']:12} ", end="")
    print(f"{row['worst']:6.3f} {row['spend']:6.3f} {row['quality']:7.4f} ", end="")
    print(f"{row['free']:6.4f} {row['fixed']:6.4f} {row['mix']:6.4f}", flush=True)


if __name__ == "__main__":
    main()
