"""What must hold after a stream: the topics, SQL and the vendor's book tell the same story.

Invariant: every check compares two things that were written by different parts, and each finding
names an example.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from metallm_stream.cli.demo.books import Books, Rebuild, Row
from metallm_stream.cli.demo.stranger import Found, Log

SAME = 1e-9
EXAMPLES = 3


@dataclass(frozen=True)
class Counts:
    """What was found; `lost` and `doubled` count decisions and results together."""

    queries: int
    asked_again: int
    decisions: int
    results: int
    failures: int
    feedback_records: int
    labels_given: int
    labels_counted: int
    lost: int
    doubled: int
    unread: int
    dead_letters: int
    spend_usd: float


def count(log: Log, books: Books, query_ids: Iterable[str]) -> Counts:
    """Count what stands on the topics and in SQL for the queries that were asked."""
    wanted = set(query_ids)
    results = [item for found in log.results.values() for item in found]
    return Counts(
        queries=len(log.queries),
        asked_again=sum(len(found) - 1 for found in log.queries.values()),
        decisions=sum(map(len, log.decisions.values())),
        results=len(results),
        failures=sum("failure" in item for item in results),
        feedback_records=sum(map(len, log.feedback.values())),
        labels_given=len(log.feedback),
        labels_counted=sum(row.quality is not None for row in books.rows.values()),
        lost=sum(len(wanted - set(found)) for found in (log.decisions, log.results)),
        doubled=sum(_surplus(found, wanted) for found in (log.decisions, log.results)),
        unread=sum(
            max(0, end - books.next_offsets.get(where, 0)) for where, end in log.ends.items()
        ),
        dead_letters=len(log.dead_letters),
        spend_usd=math.fsum(item["cost_usd"] for item in results),
    )


def violations(log: Log, books: Books, query_ids: Iterable[str]) -> list[str]:
    """What does not hold, one sentence each; empty when all is well."""
    asked = set(query_ids)
    found = count(log, books, asked)
    sql_usd = math.fsum(row.cost_usd or 0.0 for row in books.rows.values())
    whole = sum(row.is_decided and row.is_answered for row in books.rows.values())
    return [
        *_once(log, asked),
        *_propensities(log.decisions),
        *_judgements(log, books.rows),
        *(f"a record was dead-lettered: {where}" for where in log.dead_letters[:EXAMPLES]),
        *_equal("queries on the topic", found.queries, "asked", len(asked)),
        *_equal("rows in SQL", len(books.rows), "queries asked", len(asked)),
        *_equal("rows with decision and result", whole, "queries asked", len(asked)),
        *_equal("labels counted in SQL", found.labels_counted, "given", found.labels_given),
        *_equal("labels in the live model", books.labels_in_model, "given", found.labels_given),
        *_equal("records that the learner has not read", found.unread, "wanted", 0),
        *_equal("USD spent in SQL", sql_usd, "in the results", found.spend_usd),
        *_equal("USD spent in SQL", sql_usd, "in the vendor's book", books.ledger.first_usd),
        *_rebuilt(books.rebuild),
    ]


def _once(log: Log, asked: set[str]) -> list[str]:
    """Exactly one decision, call and result a query, and none for anything else."""
    listed = {"decisions": log.decisions, "calls": log.calls, "results": log.results}
    said = []
    for what, found in listed.items():
        for query_id in sorted(asked | found.keys()):
            number, wanted = len(found.get(query_id, ())), int(query_id in asked)
            if number != wanted:
                said.append(f"query {query_id} has {number} {what} instead of {wanted}")
    return said[: 3 * EXAMPLES]


def _surplus(found: Found, wanted: set[str]) -> int:
    return sum(len(items) - (query_id in wanted) for query_id, items in found.items())


def _propensities(decisions: Found) -> list[str]:
    """The chosen arm's propensity is in (0, 1], and one of probabilities that add up to 1."""
    said = []
    for query_id, (decision, *_) in decisions.items():
        chances = {item["arm"]: item["probability"] for item in decision.get("candidates", ())}
        propensity, whole = decision.get("propensity", 0.0), math.fsum(chances.values())
        if not 0 < propensity <= 1 or abs(whole - 1) > SAME:
            said.append(f"query {query_id}: propensity {propensity}, candidates add up to {whole}")
        elif abs(chances[decision["arm"]] - propensity) > SAME:
            said.append(f"query {query_id}: propensity {propensity} differs from its candidate's")
    return said[:EXAMPLES]


def _judgements(log: Log, rows: Mapping[str, Row]) -> list[str]:
    """The newest feedback of each query is the quality that SQL counts."""
    said = []
    for query_id, given in log.feedback.items():
        newest = max(given, key=_given_at)["score"]
        row = rows.get(query_id)
        if row is None or row.quality is None or abs(row.quality - newest) > SAME:
            quality = None if row is None else row.quality
            said.append(f"query {query_id} was judged {newest}, but SQL has {quality}")
    return said[:EXAMPLES]


def _given_at(feedback: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(feedback["given_at"])


def _rebuilt(rebuild: Rebuild) -> list[str]:
    if rebuild.largest <= SAME:
        return []
    rows, log = f"{rebuild.from_rows:.3g}", f"{rebuild.from_log:.3g}"
    return [f"live model − rebuilt model, relative: {rows} from SQL, {log} from the log"]


def _equal(what: str, one: float, against: str, other: float) -> list[str]:
    if math.isclose(one, other, rel_tol=SAME, abs_tol=SAME):
        return []
    return [f"{what}: {one:.12g}, but {against}: {other:.12g}"]
