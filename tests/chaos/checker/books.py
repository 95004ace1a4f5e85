"""SQL says what the topics say, counts each label once, and holds the model that follows."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from tests.chaos.checker.history import History, Seen, Violation, by_query

SAME = 1e-9
FLAT = {
    "arm": ("decision", "arm"),
    "propensity": ("decision", "propensity"),
    "answered_by": ("result", "arm"),
    "prediction": ("result", "prediction"),
    "cost_usd": ("result", "cost_usd"),
}


def rows_equal_topics(history: History) -> Iterator[Violation]:
    """Decision, context and result in SQL are those of the topics, and no row is made up."""
    told = {topic: by_query(history.of(topic)) for topic in ("decisions", "results", "feedback")}
    for query_id in sorted(history.accepted()):
        row = history.rows.get(query_id)
        if row is None:
            yield Violation("row", "not in metallm.interactions", query_id)
            continue
        said = {
            "decision": _value(told["decisions"].get(query_id)),
            "result": _value(told["results"].get(query_id)),
        }
        context = said["decision"].pop("context", "")
        if base64.urlsafe_b64encode(row["context"] or b"").decode() != context:
            yield Violation("row", "another context in SQL than on the topic", query_id)
        for part, value in said.items():
            if without_nulls(row[part] or {}) != value:
                yield Violation("row", f"{part} in SQL: {row[part]}", query_id)
        for column, (part, name) in FLAT.items():
            if row[column] != said[part].get(name):
                yield Violation("row", f"{column} in SQL: {row[column]}", query_id)
    known = history.accepted().keys() | told["feedback"].keys()
    for query_id in sorted(history.rows.keys() - known):
        yield Violation("row", "a row for a query nobody asked", query_id)


def labels_count_once(history: History) -> Iterator[Violation]:
    """The judgement in force is the quality in SQL, and the model has learned each one once.

    Where no user has judged, a verdict counts its weight.
    """
    feedback = by_query(item for item in history.of("feedback") if not item.is_bad)
    counted: dict[str, float] = {}
    for query_id in sorted(history.accepted()):
        row = history.rows.get(query_id)
        if row is None or not row["decision"] or not row["result"]:
            continue
        expected = quality(row["decision"], row["result"], feedback.get(query_id, []))
        if row["quality"] != expected:
            said = f"quality in SQL: {row['quality']}, by the topics: {expected}"
            yield Violation("label", said, query_id)
        weight = 1.0 if expected is not None else verdict_weight(row, feedback.get(query_id, []))
        if weight and row["answered_by"] is not None:
            counted[row["answered_by"]] = counted.get(row["answered_by"], 0.0) + weight
    if history.shifts:
        return  # what was learned before a shift counts less
    for arm in sorted(counted.keys() | history.observations.keys()):
        learned, given = history.observations.get(arm, 0.0), counted.get(arm, 0.0)
        if not math.isclose(learned, given, rel_tol=SAME, abs_tol=1e-6):
            yield Violation("labels in the model", f"{arm}: {learned} learned, {given} given")


def model_is_the_fold(history: History) -> Iterator[Violation]:
    """The live model equals the one computed anew."""
    for source, difference in history.differences.items():
        if not difference <= SAME:
            said = f"differs by {difference:.3g} from the one computed anew from {source}"
            yield Violation("model", said)


def spend_adds_up(history: History) -> Iterator[Violation]:
    """What SQL says was spent is what the results say."""
    results = [(item.value or {}).get("cost_usd", 0.0) for item in history.of("results")]
    rows = [row["cost_usd"] or 0.0 for row in history.rows.values()]
    told = math.fsum(results)
    for what, usd in (("interactions", math.fsum(rows)), ("the view spend", history.spend_usd)):
        if not math.isclose(usd, told, rel_tol=SAME, abs_tol=SAME):
            yield Violation("spend", f"{usd!r} USD in {what}, {told!r} in the results")


def quality(
    decision: Mapping[str, Any], result: Mapping[str, Any], feedback: list[Seen]
) -> float | None:
    """The quality by the feedback, for labels that are right as they stand or else wrong."""
    valid = _standing(feedback)
    if not valid:
        return None
    _, deciding = max(valid, key=lambda one: one[0])
    if "failure" in result:
        return 0.0
    if "score" in deciding:
        return float(deciding["score"])
    labels = decision.get("labels")
    if labels is not None and deciding["label"] not in labels:
        return None
    return float(result.get("prediction") == deciding["label"])


def verdict_weight(row: Mapping[str, Any], feedback: list[Seen]) -> float:
    """What the verdict in a row teaches; nothing once a user has said something that stands."""
    verdict = row["verdict"] or {}
    if verdict.get("score") is None or _standing(feedback):
        return 0.0
    return float(verdict.get("weight", 0.0))


def _standing(feedback: list[Seen]) -> list[tuple[datetime, Mapping[str, Any]]]:
    """The newest of each feedback id, with its time, unless that is a withdrawal."""
    newest: dict[str | None, tuple[datetime, Mapping[str, Any]]] = {}
    for item in feedback:
        value = item.value or {}
        at = _given_at(item)
        held = newest.get(value.get("feedback_id"))
        if held is None or at > held[0]:
            newest[value.get("feedback_id")] = (at, value)
    return [one for one in newest.values() if not one[1].get("withdrawn")]


def _given_at(item: Seen) -> datetime:
    told = (item.value or {}).get("given_at")
    if told is not None:
        return datetime.fromisoformat(told)
    return datetime.fromtimestamp(item.at_s, UTC)


def _value(found: list[Seen] | None) -> dict[str, Any]:
    return {} if not found else without_nulls(dict(found[0].value or {}))


def without_nulls(value: Any) -> Any:
    """The value without what is null, at any depth."""
    if isinstance(value, Mapping):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value
