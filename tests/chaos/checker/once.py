"""Every accepted query has one decision and one result, with a propensity that can be used."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tests.chaos.checker.history import History, Violation, by_query

SAME = 1e-9


def lost_and_doubled(history: History) -> Iterator[Violation]:
    """One decision and one result for each accepted query, and none for anybody else."""
    accepted = history.accepted()
    for query_id in sorted(history.asked - accepted.keys()):
        said = "its record was acknowledged, but is not on the topic"
        yield Violation("lost query", said, query_id)
    for topic in ("decisions", "results"):
        found = by_query(history.of(topic))
        for query_id in sorted(accepted.keys() | found.keys()):
            number = len(found.get(query_id, ()))
            if query_id not in accepted:
                yield Violation(f"stray {topic}", f"{number} for a query nobody asked", query_id)
            elif number != 1:
                what = "lost" if number == 0 else "doubled"
                yield Violation(f"{what} {topic}", f"{number} instead of one", query_id)


def propensities(history: History) -> Iterator[Violation]:
    """Each decision has an arm, drawn with the probability that it says, or a refusal."""
    for item in history.of("decisions"):
        decision = item.value or {}
        if "refusal" in decision:
            continue
        chances = {one["arm"]: one["probability"] for one in decision.get("candidates", ())}
        propensity = decision.get("propensity", 0.0)
        whole = math.fsum(chances.values())
        drawn = chances.get(decision.get("arm", ""), math.nan)
        if not 0 < propensity <= 1 or not abs(drawn - propensity) <= SAME or abs(whole - 1) > SAME:
            said = f"{propensity} for a candidate with {drawn} of {whole}"
            yield Violation("propensity", said, item.query_id)
