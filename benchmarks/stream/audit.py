"""What came of a load, read as a stranger: one result a query, and SQL that says what topics say.

Invariant: an audit that returns has found nothing wrong; whatever is wrong is raised with numbers.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from confluent_kafka import TopicPartition
from sqlalchemy import text

from benchmarks.stream.load import Load
from benchmarks.stream.stage import Stage
from metallm_stream.encode import load_encoder
from metallm_stream.events import Decision, Result
from metallm_stream.kafka import to_end
from metallm_stream.postgres import open_engine
from metallm_stream.serve.rebuild import rebuild, rebuild_from_log

READ_WITHIN_S = 120.0
LEARNED_WITHIN_S = 120.0
_ROWS = """
SELECT query_id, arm, answered_by, cost_usd, label, quality IS NOT NULL AS judged
FROM metallm.interactions WHERE decision IS NOT NULL AND result IS NOT NULL
"""


def audit(stage: Stage, load: Load) -> dict[str, Any]:
    """Count everything; raises `AssertionError` with the first thing that is lost or doubled."""
    keys = load.asked_s.keys()
    decisions = [Decision.parse(value) for value in _values(stage, stage.names.decisions)]
    results = [Result.parse(value) for value in _values(stage, stage.names.results)]
    each_once("decisions", keys, (one.query_id for one in decisions))
    each_once("results", keys, (one.query_id for one in results))
    failed = Counter(one.failure.kind for one in results if one.failure is not None)
    rows = learned(stage, load, LEARNED_WITHIN_S)
    arms = {one.query_id: one.arm for one in decisions}
    answers = {one.query_id: (one.arm, one.cost_usd) for one in results}
    different = [
        row["query_id"]
        for row in rows
        if arms[row["query_id"]] != row["arm"]
        or answers[row["query_id"]] != (row["answered_by"], row["cost_usd"])
        or (row["label"] is not None) != (row["query_id"] in load.judged)
    ]
    assert not different, f"SQL says something else than the topics of {different[:5]}"
    return {
        "queries": len(keys),
        "decisions": len(decisions),
        "results": len(results),
        "lost": 0,
        "doubled": 0,
        "failures": dict(failed),
        "labels": len(load.judged),
        "rows_as_in_topics": len(rows),
        "live_less_rebuilt": _rebuilt(stage),
    }


def each_once(what: str, wanted: Iterable[str], found: Iterable[str]) -> None:
    """Raises `AssertionError` that says how many are lost, or come more than once."""
    expected, seen = Counter(dict.fromkeys(wanted, 1)), Counter(found)
    lost, more = expected - seen, seen - expected
    assert not lost, f"{what}: {lost.total()} lost: {list(lost)[:5]}"
    assert not more, f"{what}: {more.total()} doubled: {list(more)[:5]}"


def _values(stage: Stage, topic: str) -> list[bytes]:
    with stage.reader(topic) as consumer:
        found = consumer.list_topics(topic, timeout=15).topics[topic].partitions
        starts = [TopicPartition(topic, partition, 0) for partition in found]
        messages = list(to_end(consumer, starts, READ_WITHIN_S))
    return [value for message in messages if (value := message.value()) is not None]


def learned(stage: Stage, load: Load, within_s: float) -> list[dict[str, Any]]:
    """The rows of SQL, once all queries are learned with all labels."""
    engine = open_engine(stage.database_url, application_name="audit")
    deadline = time.monotonic() + within_s
    while True:
        with engine.connect() as conn:
            rows = [dict(row) for row in conn.execute(text(_ROWS)).mappings()]
        judged = sum(row["judged"] for row in rows)
        if len(rows) >= len(load.asked_s) and judged >= len(load.judged):
            break
        assert time.monotonic() < deadline, (
            f"learned {len(rows)} of {len(load.asked_s)} queries, {judged} of"
            f" {len(load.judged)} labels"
        )
        time.sleep(0.5)
    engine.dispose()
    each_once("rows", load.asked_s, (row["query_id"] for row in rows))
    return rows


def _rebuilt(stage: Stage) -> float:
    """How far the live model is from the one made anew of the rows, and of the topics."""
    engine = open_engine(stage.database_url, application_name="audit")
    encoder = load_encoder(stage.encoder)
    about = encoder.name, encoder.dimensions
    difference = max(
        rebuild(engine, *about).max_relative_difference,
        rebuild_from_log(engine, stage.kafka, stage.names, *about).max_relative_difference,
    )
    engine.dispose()
    assert difference <= 1e-9, f"live and rebuilt model differ by {difference}"
    return difference
