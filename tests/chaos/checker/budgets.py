"""Budgets have taken in each query and each cost once, and reserve nothing when all is answered."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from tests.chaos.checker.history import Account, History, Violation, by_query

SAME = 1e-9
# Failed tries that a vendor may have charged without telling.
MAYBE_BILLED = {"timeout", "deadline", "superseded", "malformed_answer", "connection"}
# What of the queries' metadata a budget keeps apart; none: all share one account.
KEYS = {"all": None, "teams": "team"}


def accounts_add_up(history: History) -> Iterator[Violation]:
    """Each account has its queries, and what their results cost.

    What nobody tells of a result costs as much as its decision had reserved.
    """
    costs: dict[str, float] = defaultdict(float)
    decisions = by_query(history.of("decisions"))
    for item in history.of("results"):
        result = item.value or {}
        costs[item.query_id] += result.get("cost_usd", 0.0)
        if any(_is_untold(attempt) for attempt in result.get("attempts", ())):
            decision = decisions[item.query_id][0].value or {}
            costs[item.query_id] += decision.get("reserved_usd", 0.0)
    expected: dict[tuple[str, str], list[float]] = defaultdict(list)
    for query_id, item in history.accepted().items():
        metadata = (item.value or {}).get("metadata", {})
        for budget, key in KEYS.items():
            value = "" if key is None else metadata.get(key)
            if value is not None:
                expected[budget, value].append(costs[query_id])
    for place in sorted(expected.keys() | history.accounts.keys()):
        own, told = expected.get(place, []), history.accounts.get(place, Account(0, 0.0, 0.0))
        spent_usd = math.fsum(own)
        if told.queries != len(own):
            yield Violation("budget", f"{place} has {told.queries} queries of {len(own)}")
        if not math.isclose(told.spent_usd, spent_usd, rel_tol=SAME, abs_tol=SAME):
            yield Violation("budget", f"{place}: {told.spent_usd!r} USD of {spent_usd!r} spent")
        if not abs(told.reserved_usd) <= SAME:
            yield Violation("budget", f"{place}: {told.reserved_usd!r} USD are still reserved")


def _is_untold(attempt: Mapping[str, Any]) -> bool:
    failure = attempt.get("failure")
    return "cost_usd" not in attempt and (failure is None or failure["kind"] in MAYBE_BILLED)
