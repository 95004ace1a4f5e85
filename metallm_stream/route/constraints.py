"""Which arms each query of a batch may use, and why the others may not.

Invariant: an arm is excluded only by something that the query says and that is known of the arm;
where nothing is left, every reason that excluded an arm is named with its value and a way out.

- `models`: only these arms. Names that the catalogue lacks are passed over, unless it lacks all.
- The prompt, taken as one token for three characters, must fit `context_window_tokens`.
- `max_cost_usd`: the arm's expected cost must not exceed it; an unknown cost is allowed.
- `min_quality`: the arm's predicted quality must reach it. Where none of the arms left does, those
  of the highest predicted quality stay, since a query is better answered than refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.events import Failure, Model, Query
from metallm_stream.route.outlook import Outlook

CHARACTERS_PER_TOKEN = 3
_NAMES_SHOWN = 5
_ROUND_OFF = 1e-9  # of predicted qualities; arms as good as the best differ by no more

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Constraints:
    """The constraints of n queries on K arms; each mask is `(n, K)`, True where it allows."""

    queries: Sequence[Query]
    models: Sequence[Model]
    outlook: Outlook
    named: Mask
    fitting: Mask
    affordable: Mask

    def allowed(self) -> Mask:
        """Arms that each query may use, `(n, K)`; a row without any is to be refused."""
        left = self.named & self.fitting & self.affordable
        wanted = np.array([query.min_quality or 0.0 for query in self.queries])
        if self.outlook.quality is None or not wanted.any():
            return left
        predicted = np.where(left, self.outlook.quality, -np.inf)
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
        for mask, reason in ((self.fitting, self._too_long), (self.affordable, self._too_dear)):
            if (left & ~mask[row]).any():
                reasons.append(reason(row, left))
            left &= mask[row]
        return _no_arm(reasons)

    def _unnamed(self, row: int) -> str:
        asked = self.queries[row].models or ()
        return (
            f"models: the catalogue has none of {_names(asked)}; name some of"
            f" {_names(model.arm for model in self.models)}, or leave `models` out"
        )

    def _too_long(self, row: int, left: Mask) -> str:
        excluded = np.flatnonzero(left & ~self.fitting[row]).tolist()
        tokens = -(-_characters(self.queries[row]) // CHARACTERS_PER_TOKEN)
        window = max(self.models[k].context_window_tokens or 0 for k in excluded)
        return (
            f"text: the prompt of about {tokens} tokens exceeds the context window of"
            f" {_names(self.models[k].arm for k in excluded)} (at most {window} tokens);"
            " shorten it or allow an arm with a larger window"
        )

    def _too_dear(self, row: int, left: Mask) -> str:
        excluded = np.flatnonzero(left & ~self.affordable[row]).tolist()
        cheapest = min(excluded, key=lambda k: float(self.outlook.cost_usd[k]))
        return (
            f"max_cost_usd: {self.queries[row].max_cost_usd:g} is below the expected cost of"
            f" {_names(self.models[k].arm for k in excluded)} (cheapest:"
            f" {self.models[cheapest].arm!r} at {self.outlook.cost_usd[cheapest]:.3g} USD);"
            " raise it or leave it out"
        )


def constrain(queries: Sequence[Query], models: Sequence[Model], outlook: Outlook) -> Constraints:
    """What n queries demand of K arms, given what is expected of the arms."""
    return Constraints(
        queries=queries,
        models=models,
        outlook=outlook,
        named=_named(queries, models),
        fitting=_fitting(queries, models),
        affordable=_affordable(queries, outlook),
    )


def _named(queries: Sequence[Query], models: Sequence[Model]) -> Mask:
    named = np.ones((len(queries), len(models)), dtype=np.bool_)
    for row, query in enumerate(queries):
        if query.models is not None:
            names = frozenset(query.models)
            named[row] = [model.arm in names for model in models]
    return named


def _fitting(queries: Sequence[Query], models: Sequence[Model]) -> Mask:
    windows = np.array([model.context_window_tokens or np.inf for model in models])
    if not np.isfinite(windows).any():
        return np.ones((len(queries), len(models)), dtype=np.bool_)
    characters = np.array([_characters(query) for query in queries], dtype=np.float64)
    return characters[:, None] <= windows * CHARACTERS_PER_TOKEN


def _affordable(queries: Sequence[Query], outlook: Outlook) -> Mask:
    limits = np.array([query.max_cost_usd or np.inf for query in queries], dtype=np.float64)
    return (outlook.cost_usd <= limits[:, None]) | ~outlook.cost_known


def _characters(query: Query) -> int:
    turns = sum(len(turn.content) for turn in query.messages or ())
    labels = sum(len(label) for label in query.labels or ())
    return len(query.text) + len(query.system or "") + turns + labels


def _names(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _NAMES_SHOWN} more" if len(every) > _NAMES_SHOWN else ""
    return ", ".join(repr(name) for name in every[:_NAMES_SHOWN]) + more


def _no_arm(reasons: Sequence[str]) -> Failure:
    return Failure(kind="no_arm", message="; and ".join(reasons)[:2_000])
