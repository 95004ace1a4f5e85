"""A batch decided at once, or under budgets in turn: each query sees what those before it reserved.

Invariant: budgets change nothing but the cost weight and the mask of allowed arms that go into the
choice, so the propensity is that of the choice under them. While no budget binds, the decisions
are those that the same generator makes without budgets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from metallm_stream.events import Model
from metallm_stream.route.account import Charge
from metallm_stream.route.arrival import Arrival
from metallm_stream.route.capabilities import output_tokens
from metallm_stream.route.constraints import Constraints, Reason, Rule
from metallm_stream.route.outlook import Outlook
from metallm_stream.route.pacer import Pacer
from metallm_stream.route.records import REFUSED, Choices

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
# Rows, their utilities and allowed arms `(m, K)` to probabilities `(m, K)` and arms drawn `(m,)`.
Choose = Callable[[slice, Floats, Mask], tuple[Floats, NDArray[np.int64]]]


def at_once(constraints: Constraints, allowed: Mask, utility: Floats, choose: Choose) -> Choices:
    """Decide queries of given allowed arms and utilities, `(n, K)`, without budgets."""
    return Choices(constraints, allowed, utility, *choose(slice(None), utility, allowed))


def paced(
    pacer: Pacer,
    arrivals: Sequence[Arrival],
    constraints: Constraints,
    allowed: Mask,
    utility: Floats,
    outlook: Outlook,
    choose: Choose,
    now: datetime,
) -> Choices:
    """Decide queries of given allowed arms and utilities, `(n, K)`, in turn.

    What each may cost is reserved.
    """
    n = len(arrivals)
    allowed, utility = allowed.copy(), utility.copy()
    fits = np.ones_like(allowed)
    probabilities, weights, reserved = np.zeros(utility.shape), np.zeros(n), np.zeros(n)
    chosen = np.full(n, REFUSED, dtype=np.int64)
    relative = outlook.weighed_cost_usd / outlook.cost_scale_usd
    for row, arrival in enumerate(arrivals):
        metadata, turn = arrival.query.metadata, slice(row, row + 1)
        weights[row] = pacer.weight(metadata, now)
        if outlook.quality is not None:
            utility[row] -= weights[row] * relative[row]
        if outlook.untried.any():
            fits[row] = ~_awaited(pacer, arrival, constraints.models, outlook, now) | ~allowed[row]
            allowed[row] &= fits[row]
        if allowed[row].any():
            costs = outlook.cost_usd[row]
            left = pacer.limited(metadata, allowed[row], costs, outlook.cost_known, now)
            fits[row] &= left | ~allowed[row]
            allowed[row] = left
            probabilities[turn], chosen[turn] = choose(turn, utility[turn], allowed[turn])
        if chosen[row] != REFUSED:
            reserved[row] = outlook.cost_usd[row, chosen[row]]
        is_told = chosen[row] == REFUSED or outlook.cost_known[chosen[row]]
        untold_arm = None if is_told else constraints.models[chosen[row]].arm
        charge = Charge(now, float(reserved[row]), untold_arm=untold_arm)
        pacer.reserve(metadata, arrival.partition, arrival.offset, charge)
    rule = Rule(fits, _exhausted(pacer, constraints, outlook, now))
    return Choices(
        constraints=replace(constraints, rules=[*constraints.rules, rule]),
        allowed=allowed,
        utility=utility,
        probabilities=probabilities,
        chosen=chosen,
        budget_weight=weights,
        reserved_usd=reserved,
    )


def _exhausted(pacer: Pacer, constraints: Constraints, outlook: Outlook, now: datetime) -> Reason:
    def reason(row: int, excluded: Sequence[Model]) -> str:
        cost = outlook.costs_of(row, constraints.models)
        arms = [model.arm for model in excluded]
        cheapest = min(cost[arm] for arm in arms)
        return pacer.refusal(constraints.queries[row].metadata, cheapest, now, arms)

    return reason


def _awaited(
    pacer: Pacer, arrival: Arrival, models: Sequence[Model], outlook: Outlook, now: datetime
) -> Mask:
    """Arms that the query may not have until it is known what they cost, `(K,)`."""
    at_most = np.array([_at_most_usd(arrival, model) for model in models])
    arms = [model.arm for model in models]
    return outlook.untried & pacer.awaited(arrival.query.metadata, arms, at_most, now)


def _at_most_usd(arrival: Arrival, model: Model) -> float:
    """What a call costs at most by the arm's price, a character as a token; infinite without."""
    price = model.price
    if price is None:
        return np.inf
    longest = output_tokens(arrival.query) or model.max_output_tokens or model.context_window_tokens
    written = price.output_usd_per_mtok * (longest or np.inf) if price.output_usd_per_mtok else 0.0
    return price.call_usd + (price.input_usd_per_mtok * arrival.characters + written) / 1e6
