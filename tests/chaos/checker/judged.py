"""Each answer that is put before the judge model has one verdict, booked apart and counted once."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from metallm_stream.providers import idempotency_key
from tests.chaos.checker.books import verdict_weight, without_nulls
from tests.chaos.checker.history import History, Seen, Violation, by_query

SAME = 1e-9
# What the judge model of the traffic says of an answer, and what its word weighs.
SCORES = {"Hello.": 0.9, "Goodbye.": 0.2}
WEIGHT = 0.25
ENOUGH = 20  # cases, of which one at least must have a score


def cases_once(history: History) -> Iterator[Violation]:
    """One case for each free text that was answered, as that answer, and none for another."""
    results, cases = by_query(history.of("results")), by_query(history.of("cases"))
    accepted = history.accepted()
    for query_id in sorted(accepted.keys() | cases.keys()):
        told = [item.value or {} for item in results.get(query_id, ())]
        answered = [one for one in told if "failure" not in one]
        is_free = query_id in accepted and _is_free(accepted[query_id])
        found = cases.get(query_id, [])
        if len(found) != (len(answered) if is_free else 0):
            yield Violation("case", f"{len(found)} for {len(answered)} answers", query_id)
        for item in found:
            case = item.value or {}
            said = [(one.get("call_id", ""), one["arm"], one.get("text")) for one in answered]
            if (*_whose(item), case.get("answer")) not in said:
                yield Violation("case", "of another answer", query_id)
            if is_free and case.get("question") != (accepted[query_id].value or {}).get("text"):
                yield Violation("case", "with another question", query_id)


def verdicts_once(history: History) -> Iterator[Violation]:
    """One verdict for each case, with the score that the judge model gives its answer."""
    cases, verdicts = (by_query(history.of(topic)) for topic in ("cases", "verdicts"))
    for query_id in sorted(cases.keys() | verdicts.keys()):
        judged, found = (
            sorted(map(_whose, items.get(query_id, ()))) for items in (cases, verdicts)
        )
        if judged != found:
            yield Violation("verdict", f"{len(found)} for {len(judged)} cases", query_id)
        answers = {
            _whose(item): (item.value or {}).get("answer") for item in cases.get(query_id, ())
        }
        for item in verdicts.get(query_id, ()):
            yield from _wrong_score(item, answers.get(_whose(item)))
    scored = sum("score" in (item.value or {}) for item in history.of("verdicts"))
    if not scored and len(history.of("cases")) >= ENOUGH:
        yield Violation("verdict", "none of all has a score")
    booked = Counter(line["idempotency_key"] for line in history.judge_ledger)
    asked = {_key(item): item for item in history.of("verdicts")}
    for key, item in sorted(asked.items()):
        if "score" in (item.value or {}) and not booked[key]:
            yield Violation("verdict", "the judge model was never asked", item.query_id)
    for key in sorted(booked.keys() - asked.keys()):
        yield Violation("stray call", f"the judge model was asked with a key of nobody's: {key}")


def _wrong_score(item: Seen, answer: str | None) -> Iterator[Violation]:
    value = item.value or {}
    right = SCORES.get(answer or ""), WEIGHT
    if "score" in value and (value["score"], value.get("weight")) != right:
        said = f"{value['score']} with weight {value.get('weight')} instead of {right}"
        yield Violation("score", said, item.query_id)


def verdicts_in_sql(history: History) -> Iterator[Violation]:
    """Rows have the verdicts of the topic, and say who has judged."""
    verdicts = by_query(history.of("verdicts"))
    feedback = by_query(item for item in history.of("feedback") if not item.is_bad)
    for query_id, row in sorted(history.rows.items()):
        told = [without_nulls(item.value or {}) for item in verdicts.get(query_id, ())]
        if without_nulls(row["verdict"] or {}) not in (told or [{}]):
            yield Violation("row", f"verdict in SQL: {row['verdict']}", query_id)
        judged_by = "user" if row["quality"] is not None else None
        if judged_by is None and verdict_weight(row, feedback.get(query_id, [])):
            judged_by = "model"
        if row["judged_by"] != judged_by:
            yield Violation("row", f"judged_by in SQL: {row['judged_by']}", query_id)


def judge_spend(history: History) -> Iterator[Violation]:
    """SQL has what the verdicts cost, and the judges have told of no less under their cap."""
    costs = [(item.value or {}).get("cost_usd", 0.0) for item in history.of("verdicts")]
    spent_usd = math.fsum(costs)
    if not math.isclose(history.judges_usd, spent_usd, rel_tol=SAME, abs_tol=SAME):
        said = f"{history.judges_usd!r} USD in the view judges, {spent_usd!r} in the verdicts"
        yield Violation("spend", said)
    told: dict[tuple[str, str], float] = {}
    for item in history.of("health"):
        value = item.value or {}
        if value.get("kind") == "spend" and value["slot"].startswith("judge-"):
            place = item.key, value["since"]
            if value["spent_usd"] < told.get(place, 0.0) - SAME:
                said = f"{item.key}: {value['spent_usd']!r} USD after {told[place]!r}"
                yield Violation("told spend", said)
            told[place] = value["spent_usd"]
    # What is booked before midnight and told after it is told of neither day.
    is_one_day = len({since for _, since in told}) == 1
    if is_one_day and math.fsum(told.values()) < spent_usd - SAME:
        yield Violation("told spend", f"{told} for verdicts of {spent_usd!r} USD")


def _is_free(query: Seen) -> bool:
    return not {"labels", "answer", "regions"} & (query.value or {}).keys()


def _whose(item: Seen) -> tuple[str, str]:
    value: Any = item.value or {}
    return value.get("call_id", ""), value.get("arm", "")


def _key(verdict: Seen) -> str:
    """What the vendor is told for the call that led to a verdict."""
    value: Any = verdict.value or {}
    identity = f"{value.get('call_id')}\n{value.get('template')}"
    call_id = hashlib.sha256(identity.encode()).hexdigest()[:32]
    return idempotency_key(call_id, f"judge:{value.get('judge', '').rpartition('/')[2]}")
