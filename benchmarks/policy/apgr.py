"""RouteLLM's measure for two models: how much of their gap is recovered, over the share of calls.

For each share of calls to the strong model, the performance gap recovered is `(quality − weak) /
(strong − weak)`; APGR is its mean over shares from 0 to 1, so that chance has 0.5. Shares come from
replays under different prices of the strong model (a negative price is one of the weak model), each
of which starts cold; prices are added between those whose shares lie far apart. Always weak and
always strong are the ends. Qualities of the ends, and of every point, are of the same queries: the
whole stream, or its second half.

References
----------
Ong et al. (2024), RouteLLM: learning to route LLMs with preference data, section 4.

"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from full_information import STRENGTHS, predictions
from numpy.typing import NDArray
from plots import plot_quality
from streams import Stream, read_task
from tables import show, write

from metallm_stream.evaluate import Labels, replay, utilities
from metallm_stream.policy.multi_task_ridge import MultiTaskRidge

FILE, TASK = "routellm_mmlu_gsm8k.jsonl.gz", "mmlu"
# What a call of the strong model costs, in quality: where the sweep begins, and how it is refined.
PRICES = (-0.4, -0.1, 0.0, 0.1, 0.2, 0.3, 0.7)
STEP, FINEST, MOST = 0.06, 0.001, 32
Point = tuple[float, float]


def apgr(points: Sequence[Point]) -> float:
    """The mean recovered gap over shares from 0 to 1, by trapezoids between the points."""
    shares, recovered = np.array(with_ends(points)).T
    return float(np.trapezoid(recovered, shares))


def point(quality: NDArray[np.float64], strong: NDArray[np.bool_]) -> Point:
    """Share of strong calls and gap recovered; quality `(n, 2)` is of weak and strong."""
    low, high = quality.mean(axis=0)
    got = np.where(strong, quality[:, 1], quality[:, 0]).mean()
    return float(strong.mean()), float((got - low) / (high - low))


def online(stream: Stream, rule: str, seed: int, price: float) -> tuple[Point, Point]:
    """One cold replay under a price: its points of the whole stream and of the second half."""
    outcomes, contexts = stream.outcomes, stream.contexts
    strong = int(np.argmax(outcomes.quality.mean(axis=0)))
    cost = np.zeros(outcomes.quality.shape)
    cost[:, strong if price > 0 else 1 - strong] = 1.0
    weighed = utilities(replace(outcomes, cost_usd=cost), abs(price))
    order = np.random.default_rng(seed).permutation(len(contexts))
    policy, rng = MultiTaskRidge(rule, seed=seed), np.random.default_rng((seed, 1))
    chosen = replay(weighed, contexts, policy, order=order, labels=Labels(), rng=rng)
    quality = outcomes.quality[order][:, [1 - strong, strong]]
    is_strong, half = chosen.columns == strong, len(order) // 2
    return point(quality, is_strong), point(quality[half:], is_strong[half:])


def sweep(stream: Stream, rule: str, seed: int) -> list[tuple[Point, Point]]:
    """Points of prices that are halved wherever neighbours' shares differ by more than `STEP`."""
    found = {price: online(stream, rule, seed, price) for price in PRICES}
    while len(found) < MOST:
        prices = sorted(found)
        far = [
            (abs(found[low][1][0] - found[high][1][0]), (low + high) / 2)
            for low, high in pairwise(prices)
            if high - low > FINEST
        ]
        widest, price = max(far)
        if widest <= STEP:
            break
        found[price] = online(stream, rule, seed, price)
    return [found[price] for price in sorted(found)]


def informed(stream: Stream, seed: int) -> float:
    """APGR on the second half of a ridge that saw all outcomes of the first; the best of its λ."""
    order = np.random.default_rng(seed).permutation(len(stream.contexts))
    quality = stream.outcomes.quality[order]
    quality = quality[:, np.argsort(quality.mean(axis=0))]
    half, found = len(order) // 2, []
    gap = quality[:, 1:] - quality[:, :1]
    for predicted in predictions(stream.contexts[order], gap, half):
        cuts = np.quantile(predicted, np.linspace(0.02, 0.98, 49))
        found.append(apgr([point(quality[half:], predicted[:, 0] > cut) for cut in cuts]))
    assert len(found) == len(STRENGTHS)
    return max(found)


def report_apgr(given: argparse.Namespace) -> None:
    """Sweep the price for each policy and shuffle; print, plot and write the figures."""
    path = given.data / FILE
    if not path.exists():
        print(f"no {FILE} in {given.data}: this measure has no synthetic stream")
        return
    stream = read_task(path, given.encoder, TASK)
    rows: list[dict[str, Any]] = []
    curves: dict[str, list[Point]] = {}
    for rule in given.policy:
        whole, half = [], []
        for seed in range(given.shuffles):
            points = sweep(stream, rule, seed)
            whole.append([first for first, _ in points])
            half.append([second for _, second in points])
        rows.append({"policy": rule, **summary("whole", whole), **summary("second_half", half)})
        curves[f"{rule}, whole"] = mean_curve(whole)
        curves[f"{rule}, second half"] = mean_curve(half)
    reference = float(np.mean([informed(stream, seed) for seed in range(given.shuffles)]))
    columns = ("policy", "whole", "±", "second half", "±")
    lines: list[list[object]] = [
        [
            row["policy"],
            row["whole"],
            row["whole_error"],
            row["second_half"],
            row["second_half_error"],
        ]
        for row in rows
    ]
    lines += [["full information", None, None, reference, None], ["chance", 0.5, None, 0.5, None]]
    title = f"APGR, {len(stream.contexts):,} queries of {TASK}, {given.shuffles} shuffles"
    show(title, columns, lines)
    plot_quality(given.json.with_name("apgr.png"), title, curves)
    figures = {"shuffles": given.shuffles, "full_information": reference, "curves": curves}
    write(given.json.with_name("apgr.json"), {**figures, "rows": rows})


def summary(name: str, found: Sequence[Sequence[Point]]) -> dict[str, float]:
    """Mean APGR over shuffles, and its standard error."""
    values = [apgr(points) for points in found]
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return {name: float(np.mean(values)), f"{name}_error": error}


def mean_curve(found: Sequence[Sequence[Point]]) -> list[Point]:
    """Mean over shuffles of what is recovered at even shares."""
    shares = np.linspace(0.0, 1.0, 21)
    curves = [np.interp(shares, *zip(*with_ends(points), strict=True)) for points in found]
    return list(zip(shares.tolist(), np.mean(curves, axis=0).tolist(), strict=True))


def with_ends(points: Sequence[Point]) -> list[Point]:
    """By share, between always weak and always strong."""
    return sorted([(0.0, 0.0), *points, (1.0, 1.0)])
