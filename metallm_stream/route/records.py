"""A decided batch as records: one decision a query, and the call for the arms to try.

Invariant: the record holds all that is needed to learn from the decision and to explain it, each
allowed arm with its probability included, in the catalogue's order; what was not known when the
decision was made is absent from it. It is written from the batch's columns, byte for byte as
`Decision.encode` writes it, and nothing is written that `Decision` would refuse.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import compress
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from metallm_stream.encode import context_to_bytes
from metallm_stream.events import SCHEMA_VERSION, Decision, Model
from metallm_stream.route.arrival import Arrival
from metallm_stream.route.constraints import Constraints
from metallm_stream.route.outlook import Outlook

REFUSED = -1
MAX_RANKING: Final = 16

# A field of the candidates: values `(n, K)`, and of which arms they are known, `(K,)`.
Column = tuple[str, NDArray[np.float64], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, and the arms to try: the chosen one, then the other allowed ones by utility.

    `value` is the decision's record, `call` the call's with the first `MAX_RANKING` arms; there is
    no call, and no ranking, exactly when the decision is a refusal. `exploration` is the
    probability that another arm than the most probable one would be drawn.
    """

    value: bytes
    call: bytes | None
    ranking: tuple[Model, ...]
    exploration: float = 0.0

    @property
    def decision(self) -> Decision:
        """The decision, read back from its record."""
        return Decision.parse(self.value)


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
    now, encoder, policy
        When it was decided, what made the contexts, and the rule of choice.

    """

    outlook: Outlook
    choices: Choices
    cost_weight: NDArray[np.float64]
    latency_weight: NDArray[np.float64]
    contexts: NDArray[np.float32]
    now: datetime
    encoder: str
    policy: str


def records(arrivals: Sequence[Arrival], drawn: Drawn) -> list[Decided]:
    """The records of a decided batch, one a query, in order.

    Raises `pydantic.ValidationError` where a number is none that a decision may hold.
    """
    choices, columns = drawn.choices, _columns(drawn)
    if arrivals:
        _check(_fields(drawn, 0, arrivals[0], []), drawn, columns)
    models = choices.constraints.models
    ranked = [orjson.Fragment(model.encode()) for model in models]
    likeliest = choices.probabilities.max(axis=1, initial=0.0)
    explored = np.where(choices.chosen == REFUSED, 0.0, 1.0 - likeliest).tolist()
    rows = zip(arrivals, _candidates(drawn, columns), _order(drawn), explored, strict=True)
    return [
        Decided(
            value=_encode(_fields(drawn, row, arrival, candidates)),
            call=_call(drawn, arrival, [ranked[k] for k in order]) if order else None,
            ranking=tuple([models[k] for k in order]),
            exploration=exploration,
        )
        for row, (arrival, candidates, order, exploration) in enumerate(rows)
    ]


def _encode(fields: Mapping[str, Any]) -> bytes:
    """A record's value from its fields in their order, as `Event.encode` writes it."""
    return orjson.dumps(_set_ones(fields), option=orjson.OPT_UTC_Z)


def _set_ones(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _fields(
    drawn: Drawn, row: int, arrival: Arrival, candidates: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The fields of one query's decision in the record's order, None where one is unset."""
    query = arrival.query
    return {
        "schema_version": SCHEMA_VERSION,
        "query_id": query.query_id,
        "fingerprint": arrival.fingerprint,
        "query_partition": arrival.partition,
        "query_offset": arrival.offset,
        "asked_at": arrival.asked_at,
        "decided_at": drawn.now,
        "task": query.task,
        "labels": query.labels,
        "answer": None if query.answer is None else orjson.Fragment(query.answer.encode()),
        "metadata": query.metadata,
        "encoder": drawn.encoder,
        "context": urlsafe_b64encode(context_to_bytes(drawn.contexts[row])).decode(),
        "policy": drawn.policy,
        "policy_version": drawn.outlook.policy_version,
        **_choice(drawn, row, arrival, candidates),
    }


def _choice(
    drawn: Drawn, row: int, arrival: Arrival, candidates: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    choices, chosen = drawn.choices, int(drawn.choices.chosen[row])
    is_refused = chosen == REFUSED
    refusal = choices.constraints.refusal(row).encode() if is_refused else None
    weight, reserved = choices.budget_weight, choices.reserved_usd
    return {
        "arm": None if is_refused else choices.constraints.models[chosen].arm,
        "propensity": None if is_refused else float(choices.probabilities[row, chosen]),
        "candidates": candidates,
        "cost_weight": float(drawn.cost_weight[row]),
        "latency_weight": float(drawn.latency_weight[row]),
        "cost_scale_usd": drawn.outlook.cost_scale_usd,
        "prompt_characters": arrival.characters,
        "budget_weight": None if weight is None else float(weight[row]),
        "reserved_usd": None if reserved is None else float(reserved[row]),
        "refusal": None if refusal is None else orjson.Fragment(refusal),
    }


def _check(fields: Mapping[str, Any], drawn: Drawn, columns: Sequence[Column]) -> None:
    """Hold a batch's numbers to the bounds of their fields; the rest was validated with the query.

    A column keeps to them where its least and its greatest value do, in a decision of any fields.
    """
    choices = drawn.choices
    answered = np.flatnonzero(choices.chosen != REFUSED)
    propensity = choices.probabilities[answered, choices.chosen[answered]]
    numbers = {
        "propensity": np.append(propensity, 1.0),  # there may be none
        "cost_weight": drawn.cost_weight,
        "latency_weight": drawn.latency_weight,
        "budget_weight": choices.budget_weight,
        "reserved_usd": choices.reserved_usd,
    }
    listed = {name: values[choices.allowed & known] for name, values, known in columns}
    for extreme in (np.min, np.max):
        own = {name: _number(extreme, values) for name, values in numbers.items()}
        seen = {name: _number(extreme, values) for name, values in listed.items()}
        candidates = [{"arm": "any", **seen}] if choices.allowed.any() else []
        others = {"answer": None, "arm": "any", "candidates": candidates, "refusal": None}
        Decision(**{**fields, **others, **own})


def _number(
    extreme: Callable[[NDArray[np.float64]], np.float64], values: NDArray[np.float64] | None
) -> float | None:
    return None if values is None or not values.size else float(extreme(values))


def _columns(drawn: Drawn) -> list[Column]:
    """The numbers of the candidates, in the record's order."""
    outlook, choices = drawn.outlook, drawn.choices
    shape = choices.utility.shape
    nothing, every = np.zeros(shape), np.ones(shape[1], dtype=np.bool_)
    scores, learned = outlook.scores, every if outlook.scores is not None else ~every
    return [
        ("probability", choices.probabilities, every),
        ("quality", nothing if scores is None else scores.quality, learned),
        ("cost_usd", outlook.cost_usd, outlook.cost_known),
        ("latency_s", np.broadcast_to(outlook.latency_s, shape), outlook.latency_known),
        ("utility", choices.utility, learned),
        ("leverage", nothing if scores is None else scores.leverage, learned),
    ]


def _candidates(drawn: Drawn, columns: Sequence[Column]) -> Iterator[list[dict[str, Any]]]:
    """Each query's allowed arms as they were seen, in the catalogue's order.

    One query's at a time: those of a batch do not fit into a processor's cache.
    """
    arms = [model.arm for model in drawn.choices.constraints.models]
    all_known, none = all(known.all() for _, _, known in columns), np.array(None)
    values = [own if all_known else np.where(known, own, none) for _, own, known in columns]
    table = np.stack(values, axis=2)
    for numbers, allowed in zip(table, drawn.choices.allowed.tolist(), strict=True):
        seen: list[dict[str, Any]] = [
            {
                "schema_version": SCHEMA_VERSION,
                "arm": arm,
                "probability": probability,
                "quality": quality,
                "cost_usd": cost_usd,
                "latency_s": latency_s,
                "utility": utility,
                "leverage": leverage,
            }
            for arm, (probability, quality, cost_usd, latency_s, utility, leverage) in compress(
                zip(arms, numbers.tolist(), strict=True), allowed
            )
        ]
        yield seen if all_known else [_set_ones(one) for one in seen]


def _order(drawn: Drawn) -> Iterator[list[int]]:
    """Each query's arms in the order to try them: the chosen one, then by utility, then by name."""
    worth = np.where(drawn.choices.allowed, drawn.choices.utility, -np.inf)
    chosen = np.flatnonzero(drawn.choices.chosen != REFUSED)
    worth[chosen, drawn.choices.chosen[chosen]] = np.inf
    order = np.argsort(-worth, axis=1, kind="stable").tolist()
    for ranked, allowed in zip(order, drawn.choices.allowed.sum(axis=1).tolist(), strict=True):
        yield ranked[:allowed]


def _call(drawn: Drawn, arrival: Arrival, ranking: Sequence[orjson.Fragment]) -> bytes:
    """The call's record, as `Call.encode` writes it."""
    query = arrival.query
    return _encode(
        {
            "schema_version": SCHEMA_VERSION,
            "call_id": arrival.call_id,
            "query": orjson.Fragment(query.encode()),
            "ranking": ranking[:MAX_RANKING],
            "attempts": (),
            "skipped": (),
            "decided_at": drawn.now,
            "deadline_at": query.deadline_at(arrival.asked_at),
        }
    )
