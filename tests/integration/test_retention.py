"""A running learner drops what is too old, however much that is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from metallm_stream.join import Interaction
from metallm_stream.postgres import load_for_update, save_interactions
from metallm_stream.postgres.retention import MOST
from tests.pipeline import Pipeline, eventually


def test_a_learner_drops_old_days_piece_by_piece(pipeline: Pipeline) -> None:
    """More than one transaction takes, soon after its start; what is young stays.

    And tomorrow's partition is there before its first query.
    """
    today = datetime.now(UTC).date()
    for day, count in ((today - timedelta(days=3), MOST + 500), (today, 3)):
        ids = [f"{day}-{number}" for number in range(count)]
        with pipeline.engine.begin() as conn:
            load_for_update(conn, ids, day)
            save_interactions(conn, [(day, Interaction(query_id)) for query_id in ids])
    pipeline.start("learner", LEARNER__RETENTION_DAYS="2").wait_ready(60)
    eventually(lambda: stored(pipeline) == 3, 60)
    kept = pipeline.sql("SELECT metallm.partition_days() AS day ORDER BY day")
    assert [row["day"] for row in kept] == [today, today + timedelta(days=1)]


def stored(pipeline: Pipeline) -> object:
    """How many interactions are kept."""
    return pipeline.sql("SELECT count(*) AS n FROM metallm.interactions")[0]["n"]
