"""Learning curves of policies that start cold, between the best fixed arm and full information.

    python benchmarks/policy/curves.py --data FOLDER --shuffles 10 --limit 4000
    python benchmarks/policy/curves.py --data FOLDER --apgr

Every stream is shuffled and replayed as `metallm replay` does it, seed for seed, so that whole and
second half are its figures. "fixed" is the best fixed arm, known in hindsight of the same queries;
"full" is a ridge that saw every arm's outcome on the first half, with its λ picked on the second;
"way" is the share of the way from the one to the other, and "all" that from uniform choices to full
information, on the second half; no "way" is said where full information gains less than 0.005.
Labels are few or late at one cost weight. Streams without any cost are replayed under one weight,
since all are the same.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from apgr import report_apgr
from full_information import second_half
from numpy.typing import NDArray
from plots import plot
from streams import Stream, add_options, logged, synthetic
from tables import parser, say_versions, show, write
from threadpoolctl import threadpool_limits

from metallm_stream.evaluate import Labels, Utilities, parts, replay, utilities
from metallm_stream.policy import CHOOSERS, DEFAULT_CHOOSER
from metallm_stream.policy.multi_task_ridge import MultiTaskRidge

BINS = 20
FIRST = 200
# Where context gains less than this, the share of the way to it says nothing.
WORTH = 0.005
VARIANTS = {
    "labels 10 %": Labels(fraction=0.1),
    "labels 500 late": Labels(delay=500),
    "labels 10 %, 500 late": Labels(fraction=0.1, delay=500),
}
COLUMNS = (
    "",
    "policy",
    "whole",
    "±",
    "fixed",
    "half 2",
    "±",
    "fixed",
    "full",
    "way",
    "all",
    "1-200",
)
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Case:
    """A stream under one cost weight, and how its labels come."""

    stream: Stream
    cost_weight: float
    variant: str
    labels: Labels

    @property
    def title(self) -> str:
        """What a table and a plot call it."""
        return ", ".join(filter(None, (f"p = {self.cost_weight:g}", self.variant)))


@dataclass(frozen=True, eq=False)
class Replay:
    """One shuffle: utilities of a policy and of the references.

    Attributes
    ----------
    policy, fixed, uniform
        Of each query, `(m,)`; `fixed` is the arm that is best on the whole.
    full
        Of each query of the second half.
    best
        Means of the best fixed arms of the whole and of the second half.

    """

    policy: Floats
    fixed: Floats
    uniform: Floats
    full: Floats
    best: tuple[float, float]


def cases(stream: Stream, weights: Sequence[float], label_weight: float) -> Iterator[Case]:
    """Every cost weight with all labels, and one weight with few or late ones."""
    if not stream.priced:
        weights, label_weight = [0.0], 0.0
    for weight in weights:
        yield Case(stream, weight, "", Labels())
    for variant, labels in VARIANTS.items():
        yield Case(stream, label_weight, variant, labels)


def replayed(case: Case, weighed: Utilities, rule: str, seed: int, limit: int) -> Replay:
    """One replay, as `metallm replay --seed SEED --limit LIMIT` does it."""
    contexts = case.stream.contexts
    order = np.random.default_rng(seed).permutation(len(contexts))[:limit]
    policy, rng = MultiTaskRidge(rule, seed=seed), np.random.default_rng((seed, 1))
    chosen = replay(weighed, contexts, policy, order=order, labels=case.labels, rng=rng)
    whole, half = parts(weighed, order, chosen)
    utility = weighed.utility[order]
    best = int(np.argmax(utility.mean(axis=0)))
    rows = np.arange(len(order) // 2, len(order))
    return Replay(
        policy=utility[np.arange(len(order)), chosen.columns],
        fixed=utility[:, best],
        uniform=utility.mean(axis=1),
        full=utility[rows, second_half(contexts[order], utility)],
        best=(whole.baselines["best_fixed"].utility, half.baselines["best_fixed"].utility),
    )


def figures(found: Sequence[Replay]) -> dict[str, Any]:
    """Means over shuffles with standard errors, and the curves."""
    half = len(found[0].policy) // 2
    second = [float(one.policy[half:].mean()) for one in found]
    fixed = float(np.mean([one.best[1] for one in found]))
    full = float(np.mean([one.full.mean() for one in found]))
    uniform = float(np.mean([one.uniform[half:].mean() for one in found]))
    reached = float(np.mean(second))
    return {
        "n": len(found[0].policy),
        "whole": mean_and_error([float(one.policy.mean()) for one in found]),
        "second_half": mean_and_error(second),
        "first_200": mean_and_error([float(one.policy[:FIRST].mean()) for one in found]),
        "best_fixed": {
            "whole": float(np.mean([one.best[0] for one in found])),
            "second_half": fixed,
        },
        "full_information": full,
        "uniform": uniform,
        "way": (reached - fixed) / (full - fixed) if full - fixed >= WORTH else None,
        "way_from_uniform": (reached - uniform) / (full - uniform),
        "curves": {
            "policy": curve([one.policy for one in found], BINS),
            "best fixed arm": curve([one.fixed for one in found], BINS),
            "uniform": curve([one.uniform for one in found], BINS),
            "full information": curve([one.full for one in found], BINS // 2),
        },
    }


def curve(streams: Sequence[Floats], bins: int) -> list[tuple[float, float]]:
    """Mean and standard error of each bin over shuffles."""
    binned = [[float(part.mean()) for part in np.array_split(one, bins)] for one in streams]
    return [mean_and_error(values) for values in zip(*binned, strict=True)]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean of shuffles, and its standard error."""
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(np.mean(values)), error


def row(title: str, rule: str, found: dict[str, Any]) -> list[object]:
    """One line of the table."""
    fixed = found["best_fixed"]
    way = "-" if found["way"] is None else f"{found['way']:.0%}"
    return [
        *(title, rule, *found["whole"], fixed["whole"]),
        *(*found["second_half"], fixed["second_half"], found["full_information"], way),
        *(f"{found['way_from_uniform']:.0%}", found["first_200"][0]),
    ]


def report(stream: Stream, given: argparse.Namespace) -> list[dict[str, Any]]:
    """All figures of one stream, its table and its plot."""
    rows, lines, panels = [], [], {}
    for case in cases(stream, given.cost_weights, given.label_cost_weight):
        weighed = utilities(stream.outcomes, case.cost_weight)
        panels[case.title] = {}
        for rule in given.policy:
            seeds = range(given.shuffles)
            found = figures([replayed(case, weighed, rule, seed, given.limit) for seed in seeds])
            asked = {"stream": stream.name, "p": case.cost_weight, "labels": case.variant}
            rows.append({**asked, "policy": rule, **found})
            lines.append(row(case.title, rule, found))
            panels[case.title][rule] = found["curves"]
    show(f"{stream.name}: {rows[0]['n']:,} queries, {given.shuffles} shuffles", COLUMNS, lines)
    plot(given.json.with_name(f"curves-{stream.name}.png"), stream.name, panels)
    return rows


def main() -> None:
    """Replay every stream; print tables, draw plots and write JSON."""
    options = parser(__doc__, "curves")
    add_options(options)
    options.add_argument("--policy", action="append", help=f"of {', '.join(CHOOSERS)}; repeatable")
    options.add_argument("--shuffles", type=int, default=10)
    options.add_argument("--limit", type=int, default=4_000)
    options.add_argument("--cost-weights", type=float, nargs="+", default=[0, 0.05, 0.1, 0.3, 1])
    options.add_argument("--label-cost-weight", type=float, default=0.1)
    options.add_argument("--apgr", action="store_true", help="strong against weak instead")
    given = options.parse_args()
    given.policy = given.policy or [DEFAULT_CHOOSER]
    say_versions()
    with threadpool_limits(limits=1, user_api="blas"):
        if given.apgr:
            report_apgr(given)
            return
        streams = [synthetic(given.limit), *logged(given)]
        rows = [found for stream in streams for found in report(stream, given)]
    write(given.json, {"shuffles": given.shuffles, "limit": given.limit, "rows": rows})


if __name__ == "__main__":
    main()
