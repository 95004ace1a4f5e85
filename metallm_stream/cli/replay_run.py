"""What `metallm replay` was asked, done.

Invariant: contexts are encoded once, and each shuffle begins cold.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from threadpoolctl import threadpool_limits

from metallm_stream.cli.replay_report import Asked, Report
from metallm_stream.encode import load_encoder
from metallm_stream.evaluate import (
    Outcomes,
    Part,
    Replayed,
    Spending,
    Utilities,
    mean_part,
    parts,
    read_outcomes,
    replay,
    utilities,
    within_budget,
)
from metallm_stream.policy.multi_task_ridge import MultiTaskRidge
from metallm_stream.policy.river_alone import RiverAlone
from metallm_stream.policy.river_policy import river_policy
from metallm_stream.route import SoleAccount


def replayed(asked: Asked, cost_weights: Sequence[float]) -> list[Report]:
    """One report for each cost weight, in order.

    Raises `BadParameter` for what this file does not allow, and `ConfigurationError` for a policy
    that cannot be run.
    """
    outcomes = _outcomes(asked)
    kind, _, arm = asked.policy.partition(":")
    for weight in cost_weights:
        arms = utilities(outcomes, weight).outcomes.arms
        if kind == "fixed" and arm not in arms:
            known = ", ".join(arms)
            raise click.BadParameter(
                f"no arm {arm!r} in this file"
                + (" whose cost is known" if arm in outcomes.arms else "")
                + f": {known}",
                param_hint="--policy",
            )
    contexts = load_encoder(asked.encoder).encode(outcomes.texts)
    return [_report(asked, utilities(outcomes, weight), contexts) for weight in cost_weights]


def _outcomes(asked: Asked) -> Outcomes:
    """What the file holds; under a budget, of the arms whose cost is known.

    A budget that no arm keeps to is noted.
    """
    outcomes = read_outcomes(asked.file)
    if asked.budget_usd is None:
        return outcomes
    priced = outcomes.priced(cost_weight=1.0)
    if not priced.cost_usd.any():
        raise click.BadParameter(
            f"no arm in {asked.file.name} costs anything: leave it out, or log costs",
            param_hint="--budget-usd-per-query",
        )
    if within_budget(priced, asked.budget_usd).any():
        return priced
    mean_usd = priced.cost_usd.mean(axis=0)
    cheapest = int(mean_usd.argmin())
    note = (
        f"the budget of {asked.budget_usd:g} USD a query cannot be held: {priced.arms[cheapest]}, "
        f"the cheapest arm, costs {mean_usd[cheapest]:.4g} USD in the mean, and is asked where "
        "nothing fits"
    )
    return replace(priced, notes=(*priced.notes, note))


def _report(asked: Asked, stream: Utilities, contexts: NDArray[np.float32]) -> Report:
    n = min(len(contexts), asked.limit or len(contexts))
    seeds = range(asked.seed, asked.seed + asked.shuffles)
    console = Console(stderr=True)
    started_s = time.perf_counter()
    # Matrices of this size gain nothing from more threads, and on busy cores wait for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        found = [
            _figures(asked, stream, contexts, seed)
            for seed in track(seeds, "replaying", console=console, disable=not console.is_terminal)
        ]
    elapsed_s = time.perf_counter() - started_s
    spent = [spending for _, _, spending in found if spending is not None]
    return Report(
        asked=asked,
        stream=stream,
        n=n,
        whole=mean_part([whole for whole, _, _ in found]),
        second_half=mean_part([half for _, half, _ in found]),
        spending=Spending.over(spent) if spent else None,
        queries_per_s=n * asked.shuffles / elapsed_s,
    )


def _figures(
    asked: Asked, stream: Utilities, contexts: NDArray[np.float32], seed: int
) -> tuple[Part, Part, Spending | None]:
    """The whole and the second half of one shuffle's replay, and how it kept to the budget."""
    order = _order(len(contexts), asked, seed)
    choices = replay(
        stream,
        contexts,
        _policy(asked, contexts.shape[1], seed),
        order=order,
        labels=asked.labels,
        rng=np.random.default_rng((seed, 1)),
        budget=None if asked.budget_usd is None else SoleAccount(asked.budget_usd),
        cost_delay=asked.cost_delay,
    )
    spending = None
    if asked.budget_usd is not None:
        spent = stream.outcomes.cost_usd[order, choices.columns]
        spending = Spending.of(spent, asked.budget_usd)
    return *parts(stream, order, choices, asked.budget_usd), spending


def _policy(asked: Asked, dimensions: int, seed: int) -> Replayed:
    if asked.floor is not None:
        policy = river_policy(asked.policy, asked.parameters)
        return RiverAlone(policy, asked.floor, dimensions=dimensions, seed=seed)
    return MultiTaskRidge(
        asked.policy,
        rule_parameters=asked.parameters,
        half_life=asked.half_life,
        drift=asked.drift,
        seed=seed,
    )


def _order(n: int, asked: Asked, seed: int) -> NDArray[np.int64]:
    positions: NDArray[np.int64] = np.arange(n)
    if asked.order == "shuffled":
        positions = np.random.default_rng(seed).permutation(n)
    return positions[: asked.limit]
