"""A learner that forgets: its model is still the one rebuilt from rows and from the log."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import text

from metallm_stream.encode import context_to_bytes
from metallm_stream.events import Decision, Feedback, Result
from metallm_stream.kafka import Record, write
from metallm_stream.postgres import claim_half_life, drop_days_before, load_forgetting
from metallm_stream.postgres.clocks import MARGIN_S
from tests import records
from tests.pipeline import ENCODER, Pipeline
from tests.processes import eventually

ARMS = ("large", "small")
DIMENSIONS, QUERIES, HALF_LIFE_S = 32, 400, 3_600.0


def decision(number: int, context: np.ndarray, decided_at: datetime) -> Decision:
    """A decision for one of the two arms, alternately."""
    return records.decision(
        f"q{number}",
        query_offset=number,
        asked_at=decided_at,
        decided_at=decided_at,
        encoder=ENCODER.replace(":", "-"),
        context=context_to_bytes(context),
        arm=ARMS[number % 2],
    )


def result(number: int, finished_at: datetime) -> Result:
    """The answer of the decided arm."""
    arm = ARMS[number % 2]
    attempt = records.attempt(arm, started_at=finished_at)
    return records.result(f"q{number}", arm, attempts=(attempt,), finished_at=finished_at)


def judged(number: int, score: float, **fields: object) -> Feedback:
    """A score."""
    return Feedback.model_validate({"query_id": f"q{number}", "score": score} | fields)


def assert_rebuilt(pipeline: Pipeline) -> None:
    """The model from the rows and from the log is the live one."""
    for from_log in (False, True):
        assert pipeline.rebuilt(from_log=from_log).max_relative_difference <= 1e-9


def observed(pipeline: Pipeline) -> float:
    """What the published policy still counts of the labels."""
    row = pipeline.sql("SELECT max(observations) AS n FROM metallm.policy_now")[0]
    return float(str(row["n"] or 0))


def test_what_is_old_counts_less_and_rebuilding_finds_the_same(pipeline: Pipeline) -> None:
    """Two days of decisions, some an hour in the future, corrected late, under an hour's half-life.

    Then the half-life becomes two seconds: without any event the policy loses what it knew. At
    last all interactions are archived.
    """
    rng = np.random.default_rng(5)
    contexts = rng.normal(size=(QUERIES, DIMENSIONS)).astype(np.float32)
    now = datetime.now(UTC)
    ages = rng.uniform(0, 48 * 3_600, QUERIES)
    ages[:3] = -3_600
    times = [now - timedelta(seconds=float(age)) for age in ages]
    first, final = rng.random(QUERIES), rng.random(QUERIES)
    names = pipeline.names
    learner = pipeline.start("learner", LEARNER__HALF_LIFE_S=str(HALF_LIFE_S))
    log = [
        record
        for number, time in enumerate(times)
        for record in (
            Record.of(names.results, f"q{number}", result(number, time + timedelta(seconds=1))),
            Record.of(names.decisions, f"q{number}", decision(number, contexts[number], time)),
        )
    ]
    write(pipeline.producer, log)
    pipeline.judge(*(judged(number, first[number]) for number in range(QUERIES)))
    learner.wait_ready(60)
    pipeline.wait_until_learned()
    later = {"given_at": now + timedelta(hours=1)}
    pipeline.judge(*(judged(number, final[number], **later) for number in range(QUERIES)))
    pipeline.wait_until_learned()
    assert_rebuilt(pipeline)
    weights = np.exp2(-np.maximum(ages, 0) / HALF_LIFE_S)
    with pipeline.engine.connect() as conn:
        forgetting = load_forgetting(conn)
    read = pipeline.rebuilt().live.as_of({arm: forgetting.log2_weight(arm, now) for arm in ARMS})
    total = sum(map(read.observations, ARMS))
    # The three from the future count as of when they were written, seconds after `now`.
    assert total == pytest.approx(weights.sum(), rel=0.01)

    learner.stop()
    learner = pipeline.start("learner", slot="1", LEARNER__HALF_LIFE_S="2")
    learner.wait_ready(60)
    eventually(lambda: 0 < observed(pipeline) < 0.01 * total, 60)
    assert_rebuilt(pipeline)
    moved = pipeline.sql("SELECT half_life_s FROM metallm.half_lives ORDER BY effective_at")
    assert [row["half_life_s"] for row in moved] == [HALF_LIFE_S, 2.0]

    learner.stop()
    with pipeline.engine.begin() as conn:
        encoder = ENCODER.replace(":", "-")
        tomorrow = datetime.now(UTC).date() + timedelta(days=2)
        assert drop_days_before(conn, tomorrow, encoder, DIMENSIONS).days
    assert pipeline.rebuilt().interactions == 0
    assert_rebuilt(pipeline)


def half_lives(pipeline: Pipeline) -> list[tuple[object, object]]:
    """All rows: from when on, and the half-life."""
    rows = pipeline.sql(
        "SELECT effective_at, half_life_s FROM metallm.half_lives ORDER BY effective_at"
    )
    return [(row["effective_at"], row["half_life_s"]) for row in rows]


def weigh(pipeline: Pipeline) -> None:
    """Sums of a slot, as of a learner that has learned something."""
    with pipeline.engine.begin() as conn:
        conn.execute(
            text(
                "INSERT INTO metallm.sums (slot, arm, sums, observations) VALUES ('9', 'a', '', 0)"
            )
        )


def test_of_several_half_lives_before_anything_is_learned_the_last_is_in_force(
    pipeline: Pipeline,
) -> None:
    """Also none at all, and none of them is seen afterwards; once sums exist no row changes."""
    start = datetime(1970, 1, 1, tzinfo=UTC)
    for half_life_s in (HALF_LIFE_S, 86_400.0, None):
        with pipeline.engine.begin() as conn:
            assert claim_half_life(conn, half_life_s) == start
        assert half_lives(pipeline) == [(start, half_life_s)]
        with pipeline.engine.begin() as conn:
            assert claim_half_life(conn, half_life_s) is None
    weigh(pipeline)
    with pipeline.engine.begin() as conn:
        changed_at = claim_half_life(conn, HALF_LIFE_S)
    assert half_lives(pipeline) == [(start, None), (changed_at, HALF_LIFE_S)]
    pipeline.sql("DELETE FROM metallm.sums WHERE slot = '9' RETURNING slot")
    with pipeline.engine.begin() as conn:
        assert claim_half_life(conn, 60.0) not in (None, start)
    assert [row[1] for row in half_lives(pipeline)] == [None, HALF_LIFE_S, 60.0]


def test_a_claim_waits_for_who_may_yet_weigh_by_the_half_life_in_force(pipeline: Pipeline) -> None:
    """A learner has read the clocks and then commits the first sums: the claim is for later."""
    start = datetime(1970, 1, 1, tzinfo=UTC)
    with pipeline.engine.begin() as conn:
        assert claim_half_life(conn, HALF_LIFE_S) == start

    def claim() -> datetime | None:
        with pipeline.engine.begin() as conn:
            return claim_half_life(conn, None)

    waiting = "SELECT 1 AS n FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
    with ThreadPoolExecutor(1) as pool:
        with pipeline.engine.begin() as learner:
            load_forgetting(learner)
            claimed = pool.submit(claim)
            eventually(lambda: bool(pipeline.sql(waiting)), 30)
            weigh(pipeline)
        changed_at = claimed.result(30)
    assert half_lives(pipeline) == [(start, HALF_LIFE_S), (changed_at, None)]


def test_a_half_life_is_for_all_times_where_nothing_was_learned(pipeline: Pipeline) -> None:
    """And for the times to come where something was; the same one again changes nothing."""
    with pipeline.engine.begin() as conn:
        assert claim_half_life(conn, None) is None
        assert claim_half_life(conn, 60.0) == datetime(1970, 1, 1, tzinfo=UTC)
        assert claim_half_life(conn, 60.0) is None
    learner = pipeline.start("learner", LEARNER__HALF_LIFE_S="60")
    time = datetime.now(UTC)
    write(pipeline.producer, [Record.of(pipeline.names.results, "q0", result(0, time))])
    learner.wait_ready(60)
    pipeline.wait_until_learned()
    with pipeline.engine.begin() as conn:
        changed_at = claim_half_life(conn, None)
        assert changed_at is not None
        assert changed_at > time + timedelta(seconds=MARGIN_S - 1)
        after = load_forgetting(conn)
    week = timedelta(days=7)
    assert after.log2_weight("a", changed_at + week) == after.log2_weight("a", changed_at)
    assert pipeline.rebuilt().live.arms == ("large",)
