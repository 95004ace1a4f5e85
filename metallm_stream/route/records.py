"""A decided batch as records: one decision a query, and the arms to try.

Invariant: the record holds all that is needed to learn from the decision and to explain it, each
allowed arm with its probability included, in the catalogue's order; what was not known when the
decision was made is absent from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metallm_stream.encode import context_to_bytes
from metallm_stream.events import Decision, Model, Query
from metallm_stream.route.constraints import Constraints, characters
from metallm_stream.route.fingerprint import fingerprint
from metallm_stream.route.outlook import Outlook

REFUSED = -1


@dataclass(frozen=True, slots=True)
class Arrival:
    """A query and where it stands: partition and offset in `queries`, and the record's time.

    What its text says of it is worked out once: `fingerprint`, and the prompt's `characters`.
    """

    query: Query
    partition: int
    offset: int
    recorded_at: datetime
    fingerprint: str = field(init=False)
    characters: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint(self.query))
        object.__setattr__(self, "characters", characters(self.query))


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, and the arms to try: the chosen one, then the other allowed ones by utility.

    The ranking is empty exactly when the decision is a refusal. `exploration` is the probability
    that another arm than the most probable one would be drawn.
    """

    decision: Decision
    ranking: tuple[Model, ...]
    exploration: float = 0.0


@dataclass(frozen=True, eq=False)
class Choices:
    """What was chosen for n queries among K arms, and under what.

    Attributes
    ----------
    constraints
        What excluded arms, budgets included.
    allowed, utility, probabilities
        `(n, K)`; the probability is 0 where an arm is not allowed.
    chosen
        Index of the arm drawn, `(n,)`, or `REFUSED`.
    budget_weight, reserved_usd
        What budgets added to the cost weight, and what each call was expected to cost, `(n,)`;
        None where no budget is in force.

    """

    constraints: Constraints
    allowed: NDArray[np.bool_]
    utility: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    chosen: NDArray[np.int64]
    budget_weight: NDArray[np.float64] | None = None
    reserved_usd: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Drawn:
    """A decided batch of n queries and K arms.

    Attributes
    ----------
    outlook, choices
        What was expected of the arms, and what was chosen.
    cost_weight, latency_weight
        `(n,)`, budgets apart.
    contexts
        `(n, d)`.

    """

    outlook: Outlook
    choices: Choices
    cost_weight: NDArray[np.float64]
    latency_weight: NDArray[np.float64]
    contexts: NDArray[np.float32]


def records(
    arrivals: Sequence[Arrival], drawn: Drawn, *, now: datetime, encoder: str, policy: str
) -> list[Decided]:
    """The records of a decided batch, one a query, in order."""
    made = {"decided_at": now, "encoder": encoder, "policy": policy}
    models = drawn.choices.constraints.models
    likeliest = drawn.choices.probabilities.max(axis=1, initial=0.0)
    explored = np.where(drawn.choices.chosen == REFUSED, 0.0, 1.0 - likeliest).tolist()
    rows = zip(arrivals, _candidates(drawn), _order(drawn), explored, strict=True)
    return [
        Decided(
            decision=Decision(candidates=candidates, **made, **_fields(drawn, row, arrival)),
            ranking=tuple([models[k] for k in order]),
            exploration=exploration,
        )
        for row, (arrival, candidates, order, exploration) in enumerate(rows)
    ]


def _fields(drawn: Drawn, row: int, arrival: Arrival) -> dict[str, Any]:
    """What one query's decision has of its own, candidates apart."""
    query, chosen = arrival.query, int(drawn.choices.chosen[row])
    fields = {
        "query_id": query.query_id,
        "fingerprint": arrival.fingerprint,
        "query_partition": arrival.partition,
        "query_offset": arrival.offset,
        "asked_at": query.asked_at or arrival.recorded_at,
        "task": query.task,
        "labels": query.labels,
        "answer": query.answer,
        "metadata": query.metadata,
        "context": context_to_bytes(drawn.contexts[row]),
        "policy_version": drawn.outlook.policy_version,
        "cost_weight": float(drawn.cost_weight[row]),
        "latency_weight": float(drawn.latency_weight[row]),
        "cost_scale_usd": drawn.outlook.cost_scale_usd,
        "prompt_characters": arrival.characters,
    }
    if drawn.choices.budget_weight is not None and drawn.choices.reserved_usd is not None:
        fields["budget_weight"] = float(drawn.choices.budget_weight[row])
        fields["reserved_usd"] = float(drawn.choices.reserved_usd[row])
    if chosen == REFUSED:
        return fields | {"refusal": drawn.choices.constraints.refusal(row)}
    propensity = float(drawn.choices.probabilities[row, chosen])
    return fields | {"arm": drawn.choices.constraints.models[chosen].arm, "propensity": propensity}


def _candidates(drawn: Drawn) -> Iterator[list[dict[str, object]]]:
    """Each query's allowed arms as they were seen, in the catalogue's order.

    As fields of `Candidate`: the decision validates them all in one call, in half the time.
    """
    arms = [model.arm for model in drawn.choices.constraints.models]
    outlook = drawn.outlook
    cost = [_where_known(row, outlook.cost_known) for row in outlook.cost_usd]
    latency = _where_known(outlook.latency_s, outlook.latency_known)
    unknown = np.full(drawn.choices.utility.shape, None)
    known = outlook.quality is not None
    quality = (outlook.quality if outlook.quality is not None else unknown).tolist()
    leverage = (outlook.scores.leverage if outlook.scores is not None else unknown).tolist()
    utility = (drawn.choices.utility if known else unknown).tolist()
    probability = drawn.choices.probabilities.tolist()
    for row, allowed in enumerate(drawn.choices.allowed.tolist()):
        yield [
            {
                "arm": arm,
                "probability": probability[row][k],
                "quality": quality[row][k],
                "cost_usd": cost[row][k],
                "latency_s": latency[k],
                "utility": utility[row][k],
                "leverage": leverage[row][k],
            }
            for k, arm in enumerate(arms)
            if allowed[k]
        ]


def _order(drawn: Drawn) -> Iterator[list[int]]:
    """Each query's arms in the order to try them: the chosen one, then by utility, then by name."""
    worth = np.where(drawn.choices.allowed, drawn.choices.utility, -np.inf)
    chosen = np.flatnonzero(drawn.choices.chosen != REFUSED)
    worth[chosen, drawn.choices.chosen[chosen]] = np.inf
    order = np.argsort(-worth, axis=1, kind="stable").tolist()
    for ranked, allowed in zip(order, drawn.choices.allowed.sum(axis=1).tolist(), strict=True):
        yield ranked[:allowed]


def _where_known(values: NDArray[np.float64], known: NDArray[np.bool_]) -> list[float | None]:
    return [value if sure else None for value, sure in zip(values.tolist(), known, strict=True)]
