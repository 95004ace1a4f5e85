"""Which arms each query of a batch may use, and why the others may not.

Invariant: an arm is excluded only by something that the query says, and, but for what must be
said of an arm (tags, regions), by something that is known of the arm. Where nothing is left, every
reason that excluded an arm is named with its value and a way out.

- `models`: only these arms. Names that the catalogue lacks are passed over, unless it lacks all.
- `needs`, `language`, `regions`, `generation.max_output_tokens`: see `capabilities`.
- The prompt, taken as one token for three characters, and the answer's requested length must fit
  `context_window_tokens` together.
- `max_cost_usd`: the arm's expected cost must not exceed it; an unknown cost is allowed.
- `min_quality`: the arm's predicted quality, less one standard deviation of it, must reach it: the
  further a query lies from what an arm was judged on, the less the arm is trusted. Where none of
  the arms left does, those of the highest such quality stay, since a query is better answered than
  refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.events import Choice, Failure, Model, Query
from metallm_stream.route import capabilities
from metallm_stream.route.capabilities import Mask, names, output_tokens
from metallm_stream.route.outlook import Outlook

CHARACTERS_PER_TOKEN = 3
_ROUND_OFF = 1e-9  # of predicted qualities; arms as good as the best differ by no more

Reason = Callable[[int, Sequence[Model]], str]


@dataclass(frozen=True, eq=False)
class Rule:
    """Where an arm is allowed, `(n, K)`, and what to say to a row of the arms that it excludes."""

    mask: Mask
    reason: Reason


@dataclass(frozen=True, eq=False)
class Constraints:
    """The constraints of n queries on K arms; rules are applied in their order."""

    queries: Sequence[Query]
    models: Sequence[Model]
    outlook: Outlook
    named: Mask
    rules: Sequence[Rule]

    def allowed(self, down: Mask | None = None) -> Mask:
        """Arms that each query may use, `(n, K)`; a row without any is to be refused.

        Arms that are `down`, `(K,)`, are left out of rows that have others.
        """
        left: Mask = np.logical_and.reduce([self.named, *(rule.mask for rule in self.rules)])
        if down is not None:
            up: Mask = left & ~down
            left = np.where(np.asarray(up.any(axis=1))[:, None], up, left)
        wanted = np.array([query.min_quality or 0.0 for query in self.queries])
        sure = self.outlook.sure_quality()
        if sure is None or not wanted.any():
            return left
        predicted = np.where(left, sure, -np.inf)
        reachable = np.minimum(wanted, predicted.max(axis=1, initial=-np.inf))
        reached = predicted >= np.where(wanted > 0, reachable - _ROUND_OFF, -np.inf)[:, None]
        return left & reached

    def refusal(self, row: int) -> Failure:
        """Why query `row` is left without an arm; names fields, values and ways out."""
        if not self.models:
            return _no_arm(["the catalogue of arms is empty; add one (`metallm models add`)"])
        if not self.named[row].any():
            return _no_arm([self._unnamed(row)])
        left = self.named[row].copy()
        reasons = []
        for rule in self.rules:
            excluded = left & ~rule.mask[row]
            if excluded.any():
                models = [self.models[k] for k in np.flatnonzero(excluded).tolist()]
                reasons.append(rule.reason(row, models))
            left &= rule.mask[row]
        return _no_arm(reasons)

    def _unnamed(self, row: int) -> str:
        asked = self.queries[row].models or ()
        return (
            f"models: the catalogue has none of {names(asked)}; name some of"
            f" {names(model.arm for model in self.models)}, or leave `models` out"
        )


def constrain(
    queries: Sequence[Query],
    lengths: NDArray[np.float64],
    models: Sequence[Model],
    outlook: Outlook,
) -> Constraints:
    """What n queries demand of K arms, given their prompts' `lengths` in characters, `(n,)`."""
    demands = [
        (capabilities.capable(queries, models), capabilities.incapable_reason),
        (capabilities.speaking(queries, models), capabilities.speechless_reason),
        (capabilities.resident(queries, models), capabilities.elsewhere_reason),
        (capabilities.writing(queries, models), capabilities.too_brief_reason),
        (_fitting(queries, lengths, models), _too_long),
    ]
    rules = [Rule(mask, _of_query(queries, reason)) for mask, reason in demands]
    rules.append(Rule(_affordable(queries, outlook), _too_dear(queries, models, outlook)))
    return Constraints(queries, models, outlook, _named(queries, models), rules)


def _of_query(queries: Sequence[Query], reason: Callable[[Query, Sequence[Model]], str]) -> Reason:
    return lambda row, excluded: reason(queries[row], excluded)


def _too_long(query: Query, excluded: Sequence[Model]) -> str:
    prompt = -(-characters(query) // CHARACTERS_PER_TOKEN)
    answer = output_tokens(query)
    asked = f" and {answer} for the answer exceed" if answer else " exceeds"
    window = max(model.context_window_tokens or 0 for model in excluded)
    return (
        f"text: the prompt of about {prompt} tokens{asked} the context window of"
        f" {names(model.arm for model in excluded)} (at most {window} tokens);"
        " shorten it or allow an arm with a larger window"
    )


def _too_dear(queries: Sequence[Query], models: Sequence[Model], outlook: Outlook) -> Reason:
    def reason(row: int, excluded: Sequence[Model]) -> str:
        cost = outlook.costs_of(row, models)
        cheapest = min((model.arm for model in excluded), key=cost.__getitem__)
        return (
            f"max_cost_usd: {queries[row].max_cost_usd:g} is below the expected cost of"
            f" {names(model.arm for model in excluded)} (cheapest:"
            f" {cheapest!r} at {cost[cheapest]:.3g} USD); raise it or leave it out"
        )

    return reason


def _named(queries: Sequence[Query], models: Sequence[Model]) -> Mask:
    named = np.ones((len(queries), len(models)), dtype=np.bool_)
    for row, query in enumerate(queries):
        if query.models is not None:
            names = frozenset(query.models)
            named[row] = [model.arm in names for model in models]
    return named


def _fitting(
    queries: Sequence[Query], lengths: NDArray[np.float64], models: Sequence[Model]
) -> Mask:
    windows = np.array([model.context_window_tokens or np.inf for model in models])
    if not np.isfinite(windows).any():
        return np.ones((len(queries), len(models)), dtype=np.bool_)
    answers = np.array([output_tokens(query) for query in queries], dtype=np.float64)
    return lengths[:, None] <= (windows - answers[:, None]) * CHARACTERS_PER_TOKEN


def _affordable(queries: Sequence[Query], outlook: Outlook) -> Mask:
    limits = np.array([query.max_cost_usd or np.inf for query in queries], dtype=np.float64)
    return (outlook.cost_usd <= limits[:, None]) | ~outlook.cost_known


def characters(query: Query) -> int:
    """Length of a prompt: text, system, messages, and labels or options together."""
    turns = sum(len(turn.content) for turn in query.messages or ())
    listed = query.answer.options if isinstance(query.answer, Choice) else query.labels or ()
    return len(query.text) + len(query.system or "") + turns + sum(len(one) for one in listed)


def _no_arm(reasons: Sequence[str]) -> Failure:
    return Failure(kind="no_arm", message="; and ".join(reasons)[:2_000])
