"""All invariants over one history."""

from __future__ import annotations

from tests.chaos.checker.books import (
    labels_count_once,
    model_is_the_fold,
    rows_equal_topics,
    spend_adds_up,
)
from tests.chaos.checker.budgets import accounts_add_up
from tests.chaos.checker.history import History, Violation
from tests.chaos.checker.judged import cases_once, judge_spend, verdicts_in_sql, verdicts_once
from tests.chaos.checker.once import lost_and_doubled, propensities
from tests.chaos.checker.positions import nothing_goes_back, versions_grow
from tests.chaos.checker.refused import dead_letters
from tests.chaos.checker.vendor import calls_reach_the_vendor

INVARIANTS = (
    lost_and_doubled,
    propensities,
    calls_reach_the_vendor,
    dead_letters,
    rows_equal_topics,
    labels_count_once,
    model_is_the_fold,
    spend_adds_up,
    accounts_add_up,
    cases_once,
    verdicts_once,
    verdicts_in_sql,
    judge_spend,
    nothing_goes_back,
    versions_grow,
)


def check(history: History) -> list[Violation]:
    """What does not hold; empty when all is well."""
    return [violation for invariant in INVARIANTS for violation in invariant(history)]
