"""Days are dropped without anything learned being lost."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from psycopg.errors import LockNotAvailable
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from metallm_stream.join import Interaction
from metallm_stream.policy import Sums
from metallm_stream.postgres import (
    ARCHIVE_SLOT,
    DeadLetter,
    drop_days_before,
    ensure_day,
    fold,
    insert_interactions,
    load_for_update,
    load_slot_sums,
    load_sums,
    save_dead_letters,
    save_interactions,
    stream_interactions,
)
from metallm_stream.serve.rebuild import rebuild
from tests.integration.conftest import DIMENSIONS, Sample

FIRST = date(2026, 3, 1)


def _fill(engine: Engine, sample: Sample, days: int, each: int) -> None:
    for number in range(days):
        ids = range(number * each, (number + 1) * each)
        with engine.begin() as conn:
            known = load_for_update(conn, [f"q{i}" for i in ids], FIRST + timedelta(days=number))
            save_interactions(conn, [(known[f"q{i}"][0], sample.whole(i)) for i in ids])


def _rebuilt(engine: Engine) -> Sums:
    with engine.begin() as conn:
        sums = fold(stream_interactions(conn), "test", DIMENSIONS)
        sums.merge(Sums.from_bytes(load_slot_sums(conn, ARCHIVE_SLOT), DIMENSIONS))
    return sums


def _days(engine: Engine) -> list[date]:
    with engine.connect() as conn:
        found = conn.execute(text("SELECT * FROM metallm.partition_days() ORDER BY 1"))
        return list(found.scalars())


def test_a_day_is_made_once_whoever_asks(engine: Engine) -> None:
    """Eight learners start at the same moment."""

    def make(_: int) -> bool:
        with engine.begin() as conn:
            return ensure_day(conn, FIRST)

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(make, range(8))) == [False] * 7 + [True]
    assert _days(engine) == [FIRST]


def test_making_a_day_waits_for_no_reader_or_writer(engine: Engine, sample: Sample) -> None:
    """A partition is attached while another transaction has read and written the table."""
    _fill(engine, sample, days=1, each=2)
    with engine.begin() as busy:
        load_for_update(busy, ["q1"], FIRST)
        save_interactions(busy, [(FIRST, sample.whole(1))])
        with engine.begin() as conn:
            conn.execute(text("SET LOCAL lock_timeout = '2s'"))
            assert ensure_day(conn, FIRST + timedelta(days=1))


def test_archive_and_retained_rows_are_the_model_before_and_after(
    engine: Engine, sample: Sample
) -> None:
    """Four days, dropped in two steps: the rebuilt model stays the same."""
    _fill(engine, sample, days=4, each=300)
    before = _rebuilt(engine)
    assert before.observations("mini") == 1_200
    for keep_from, dropped in ((FIRST, 0), (FIRST + timedelta(1), 1), (FIRST + timedelta(3), 2)):
        with engine.begin() as conn:
            days = drop_days_before(conn, keep_from, "test", DIMENSIONS).days
        assert len(days) == dropped
        assert _rebuilt(engine).difference(before) < 1e-12
    assert _days(engine) == [FIRST + timedelta(3)]
    with engine.connect() as conn:
        assert len(list(stream_interactions(conn))) == 300
        assert load_sums(conn) == {}
        assert conn.execute(text("SELECT count(*) FROM metallm.query_days")).scalar_one() == 300


def test_large_rows_are_folded_in_bounded_memory(engine: Engine, sample: Sample) -> None:
    """A rebuild holds few of them at a time, whatever their number."""
    with engine.begin() as conn:
        day = load_for_update(conn, ["q0"], FIRST)["q0"][0]
        large = [
            Interaction(f"q{i}")
            .merged(sample.decision(i))
            .merged(sample.result(i, text="x" * 99_999))
            for i in range(500)
        ]
        insert_interactions(conn, [(day, item) for item in large])
    size, large = sum(len(item.result.text) for item in large if item.result), []
    tracemalloc.start()
    assert rebuild(engine, "test", DIMENSIONS).interactions == 500
    assert tracemalloc.get_traced_memory()[1] < size / 2
    tracemalloc.stop()


def test_a_failed_drop_leaves_everything(engine: Engine, sample: Sample) -> None:
    """Archive and rows change together or not at all."""
    _fill(engine, sample, days=2, each=5)
    before = _rebuilt(engine)
    with engine.connect() as conn:
        drop_days_before(conn, FIRST + timedelta(1), "test", DIMENSIONS)
        conn.rollback()
    assert _rebuilt(engine).difference(before) == 0
    assert len(_days(engine)) == 2


def test_a_day_with_joined_queries_cannot_be_dropped(engine: Engine, sample: Sample) -> None:
    """The function itself refuses, whoever calls it."""
    _fill(engine, sample, days=1, each=1)
    with pytest.raises(DBAPIError, match="archive and forget"), engine.begin() as conn:
        conn.execute(text("SELECT metallm.drop_day(:day)"), {"day": FIRST})
    assert _days(engine) == [FIRST]


def test_feedback_after_its_query_was_dropped_is_that_of_an_unknown_query(
    engine: Engine, sample: Sample
) -> None:
    """It is kept under its own day and teaches nothing."""
    _fill(engine, sample, days=1, each=1)
    with engine.begin() as conn:
        drop_days_before(conn, FIRST + timedelta(1), "test", DIMENSIONS)
    later = FIRST + timedelta(40)
    with engine.begin() as conn:
        assert load_for_update(conn, ["q0"], later) == {"q0": (later, None)}
        save_interactions(conn, [(later, Interaction("q0").merged(sample.feedback(0)))])
    assert _rebuilt(engine).observations("mini") == 1


def test_a_day_goes_piece_by_piece(engine: Engine, sample: Sample) -> None:
    """However much it holds, a transaction archives a bounded part, and the last one drops it."""
    _fill(engine, sample, days=2, each=5)
    before = _rebuilt(engine)
    left = []
    for _ in range(4):
        with engine.begin() as conn:
            done = drop_days_before(conn, FIRST + timedelta(2), "test", DIMENSIONS, most=3)
        left.append((done.interactions, len(done.days), done.has_more))
        assert _rebuilt(engine).difference(before) < 1e-12
    assert left == [(3, 0, True), (3, 0, True), (3, 0, True), (1, 2, False)]
    assert _days(engine) == []


def test_what_a_learner_has_in_work_is_left_for_later(engine: Engine, sample: Sample) -> None:
    """It waits for nobody, and what the learner adds is in the archive the next time."""
    _fill(engine, sample, days=1, each=3)
    corrected = sample.feedback(1, "B", given_at=sample.start + timedelta(days=2))
    with engine.begin() as conn:
        day, known = load_for_update(conn, ["q1"], FIRST)["q1"]
        with engine.begin() as other:
            first = drop_days_before(other, FIRST + timedelta(1), "test", DIMENSIONS)
        assert known is not None
        save_interactions(conn, [(day, known.merged(corrected))])
        final = fold([sample.whole(0), known.merged(corrected), sample.whole(2)], "test", 4)
    assert (first.interactions, first.days) == (2, ())
    with engine.begin() as conn:
        second = drop_days_before(conn, FIRST + timedelta(1), "test", DIMENSIONS)
    assert (second.interactions, second.days) == (1, (FIRST,))
    assert _rebuilt(engine).difference(final) < 1e-12


def test_of_two_learners_one_drops_and_the_other_goes_on(engine: Engine, sample: Sample) -> None:
    """Each holds the archive for as long as a piece takes, and the other has batches to learn."""
    _fill(engine, sample, days=1, each=3)
    with engine.begin() as conn:
        first = drop_days_before(conn, FIRST + timedelta(1), "test", DIMENSIONS, most=2)
        with engine.begin() as other:
            other.execute(text("SET LOCAL lock_timeout = '2s'"))
            second = drop_days_before(other, FIRST + timedelta(1), "test", DIMENSIONS)
    assert (first.interactions, second.interactions, second.has_more) == (2, 0, False)
    with engine.begin() as conn:
        assert drop_days_before(conn, FIRST + timedelta(1), "test", DIMENSIONS).days == (FIRST,)


def test_dead_letters_go_with_their_days(engine: Engine) -> None:
    """Days are those of UTC."""
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    letters = [
        DeadLetter("queries", 0, number, "router", at, "bad")
        for number, at in enumerate((midnight - timedelta(microseconds=1), midnight))
    ]
    with engine.begin() as conn:
        save_dead_letters(conn, letters)
        drop_days_before(conn, midnight.date(), "test", DIMENSIONS)
        kept = conn.execute(text("SELECT record_offset FROM metallm.dead_records")).scalars().all()
    assert kept == [1]


def test_a_day_that_somebody_reads_is_left_for_later(engine: Engine, sample: Sample) -> None:
    """A long query of an analyst holds up the drop, and nobody else."""
    _fill(engine, sample, days=1, each=3)
    before = _rebuilt(engine)
    with engine.connect() as analyst:
        analyst.execute(text("SELECT count(*) FROM metallm.interactions")).all()
        with pytest.raises(OperationalError) as refused, engine.begin() as conn:
            drop_days_before(conn, FIRST + timedelta(1), "test", DIMENSIONS)
        assert isinstance(refused.value.orig, LockNotAvailable)
        assert _rebuilt(engine).difference(before) < 1e-12
    with engine.begin() as conn:
        assert drop_days_before(conn, FIRST + timedelta(1), "test", DIMENSIONS).days == (FIRST,)
