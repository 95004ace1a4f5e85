"""Interactions as PostgreSQL keeps them: exact, locked while they change, whatever their texts."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from metallm_stream.events import Attempt, Failure
from metallm_stream.join import Interaction
from metallm_stream.postgres import (
    TooMuchError,
    insert_interactions,
    load_for_update,
    save_interactions,
    stream_interactions,
)
from tests.integration.conftest import Sample

TODAY = date(2026, 3, 1)


def _join(engine: Engine, *events, today: date = TODAY) -> dict[str, Interaction]:
    """What a learner does with a batch."""
    with engine.begin() as conn:
        known = load_for_update(conn, [event.query_id for event in events], today)
        after = {name: before or Interaction(name) for name, (_, before) in known.items()}
        for event in events:
            after[event.query_id] = after[event.query_id].merged(event)
        held = {name: item for name, (_, item) in known.items() if item is not None}
        save_interactions(conn, [(known[name][0], item) for name, item in after.items()], held)
    return after


def _load(engine: Engine, query_id: str) -> tuple[date, Interaction | None]:
    with engine.begin() as conn:
        return load_for_update(conn, [query_id], TODAY)[query_id]


def test_a_new_query_is_empty_and_belongs_to_today(engine: Engine) -> None:
    """Its partition is made on the way."""
    with engine.begin() as conn:
        assert load_for_update(conn, ["a", "b", "a"], TODAY) == {
            "a": (TODAY, None),
            "b": (TODAY, None),
        }
        assert load_for_update(conn, [], TODAY) == {}


def test_a_query_stays_in_the_partition_of_its_first_day(engine: Engine, sample: Sample) -> None:
    """Feedback of a later day finds the decision."""
    _join(engine, sample.decision(1))
    _join(engine, sample.result(1), today=TODAY + timedelta(days=1))
    _join(engine, sample.feedback(1), sample.decision(2), today=TODAY + timedelta(days=9))
    assert _load(engine, "q1") == (TODAY, sample.whole(1))
    assert _load(engine, "q2")[0] == TODAY + timedelta(days=9)


def test_parts_that_stay_are_left_and_all_others_written(engine: Engine, sample: Sample) -> None:
    """Every column is as if the interaction had been written whole, whatever came when."""
    early = sample.decision(1).model_copy(
        update={"decided_at": sample.decision(1).decided_at - timedelta(hours=1), "task": None}
    )
    arrivals = [sample.result(1), sample.decision(1), sample.feedback(1), early, sample.decision(1)]
    row = text("SELECT to_jsonb(i) - 'updated_at' FROM metallm.interactions AS i")
    for event in arrivals:
        whole = _join(engine, event)["q1"]
        with engine.begin() as conn:
            by_parts = conn.execute(row).scalar_one()
            save_interactions(conn, [(TODAY, whole)])
            assert conn.execute(row).scalar_one() == by_parts
    assert whole.decision == early
    assert by_parts["quality"] is not None


def test_inserting_writes_what_saving_writes(engine: Engine, sample: Sample) -> None:
    """Every column of every kind of row is the same, whichever way a new one takes."""
    odd = sample.result(1, text='{"a": "b\\n\\u0000"}\t\u2028 \ud800', prediction="\ud800\x00B")
    verdict = sample.whole(3).merged(sample.feedback(3, None, withdrawn=True))
    rows = [
        sample.whole(0),
        Interaction("q1", result=odd),
        Interaction("q2", feedback=(sample.feedback(2, None, score=1 / 3),)),
        verdict,
        Interaction("q4", decision=sample.decision(4, metadata={"a\tb": "\\.\n"})),
    ]
    written = text("SELECT jsonb_agg(to_jsonb(i) - 'updated_at' ORDER BY query_id)"
                   " FROM metallm.interactions AS i")  # fmt: skip
    found = []
    for write in (insert_interactions, save_interactions):
        with engine.connect() as conn, conn.begin() as undone:
            load_for_update(conn, [item.query_id for item in rows], TODAY)
            write(conn, [(TODAY, item) for item in rows])
            found.append(conn.execute(written).scalar_one())
            undone.rollback()
    assert found[0] == found[1]
    assert len(found[0]) == len(rows)


@pytest.mark.parametrize(("letter", "count"), [("x", 40_000_000), ("\U0001f600", 10_000_000)])
def test_no_more_is_loaded_at_once_than_memory_holds(
    engine: Engine, sample: Sample, letter: str, count: int
) -> None:
    """Each of two large ones can be loaded, both cannot; the connection is good afterwards."""
    for number in (1, 2):
        _join(engine, sample.result(number, text=letter * count))
    with pytest.raises(TooMuchError, match="2 queries have more than"), engine.begin() as conn:
        load_for_update(conn, ["q1", "q2"], TODAY)
    for number in (1, 2):
        known = _load(engine, f"q{number}")[1]
        assert known is not None
        assert known.result is not None
        assert len(known.result.text or "") == count


def test_what_is_loaded_is_what_was_saved(engine: Engine, sample: Sample) -> None:
    """Every field, the context's bytes and the floats' last bits come back."""
    attempt = Attempt(
        arm="large",
        started_at=datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC),
        latency_s=0.1 + 0.2,
        failure=Failure(kind="rate_limited", message='slow "down" \\u0000 \\ ☃'),
        cost_usd=5e-324,
    )
    events = (
        sample.decision(1, metadata={"b": "2", "user": "ü", "a": "1"}, propensity=1 / 3),
        sample.result(1, attempts=(attempt,), cost_usd=0.1 * 3, text='{"a": "b\\n"}\t\u2028'),
        sample.feedback(1, "A", feedback_id="one"),
        sample.feedback(1, None, score=2 / 3, feedback_id="two"),
        sample.feedback(1, None, withdrawn=True, feedback_id="three"),
    )
    saved = _join(engine, *events)["q1"]
    assert _load(engine, "q1")[1] == saved
    with engine.connect() as conn:
        assert list(stream_interactions(conn)) == [saved]


def test_parts_come_in_any_order_and_alone(engine: Engine, sample: Sample) -> None:
    """Feedback for an unknown query is kept and joined when the query comes."""
    _join(engine, sample.feedback(1))
    assert _load(engine, "q1")[1] == Interaction("q1", feedback=(sample.feedback(1),))
    _join(engine, sample.result(1))
    _join(engine, sample.decision(1))
    assert _load(engine, "q1")[1] == sample.whole(1)


def test_flat_columns_follow_the_events(engine: Engine, sample: Sample) -> None:
    """What analysts read is derived from the interaction, and changes with it."""
    row = text(
        "SELECT task, arm, answered_by, propensity, policy_version, prediction, failure, "
        "input_tokens, cost_usd, quality, problem, label FROM metallm.interactions"
    )
    _join(engine, sample.decision(1), sample.result(1), sample.feedback(1))
    with engine.connect() as conn:
        assert tuple(conn.execute(row).one()) == (
            "trivia", "mini", "mini", 0.75, 3, "A", None, 10, 0.001, 1.0, None, "A",
        )  # fmt: skip
    _join(engine, sample.feedback(1, "B", given_at=sample.start + timedelta(hours=2)))
    with engine.connect() as conn:
        assert conn.execute(row).one()[-3:] == (0.0, None, "B")
    _join(engine, sample.feedback(1, "C", given_at=sample.start + timedelta(hours=3)))
    with engine.connect() as conn:
        quality, problem, label = conn.execute(row).one()[-3:]
        assert (quality, label) == (None, "C")
        assert "C" in problem


def test_refusals_and_failures_keep_their_kind(engine: Engine, sample: Sample) -> None:
    """A query that found no arm, and one whose calls failed."""
    refusal = Failure(kind="no_arm", message="nothing is left")
    timeout = Failure(kind="timeout", message="60 s")
    _join(
        engine,
        sample.decision(1, arm=None, propensity=None, refusal=refusal, candidates=()),
        sample.decision(2),
        sample.result(2, arm=None, failure=timeout, prediction=None, text=None, attempts=()),
    )
    with engine.connect() as conn:
        kinds = conn.execute(text("SELECT query_id, failure FROM metallm.interactions ORDER BY 1"))
        assert [tuple(row) for row in kinds] == [("q1", "no_arm"), ("q2", "timeout")]


@pytest.mark.parametrize("bad", ["a\x00b", "\x00", "a\ud800b", "\\u0000 \x00 \\", "\udfff\x00"])
def test_texts_that_postgresql_refuses_do_not_stop_the_stream(
    engine: Engine, sample: Sample, bad: str
) -> None:
    """NUL is left out, a lone surrogate replaced; all else of the answer stays."""
    failed = Attempt(
        arm="large",
        started_at=sample.start,
        latency_s=1.0,
        failure=Failure(kind="server_error", message="a\x00b"),
    )
    _join(
        engine,
        sample.decision(1),
        sample.result(1, text=f"ä{bad}z", prediction=bad, attempts=(failed,)),
    )
    loaded = _load(engine, "q1")[1]
    assert loaded is not None
    assert loaded.result is not None
    clean = bad.replace("\x00", "").replace("\ud800", "\ufffd").replace("\udfff", "\ufffd")
    assert (loaded.result.text, loaded.result.prediction) == (f"ä{clean}z", clean)
    assert loaded.result.attempts[0].failure == Failure(kind="server_error", message="ab")


def test_the_largest_numbers_that_events_allow_are_stored(engine: Engine, sample: Sample) -> None:
    """Nothing that parses is too large for a column."""
    huge = sample.result(1, cost_usd=1e12, input_tokens=10**12, output_tokens=10**12)
    _join(engine, sample.decision(1, policy_version=2**62), huge)
    loaded = _load(engine, "q1")[1]
    assert loaded is not None
    assert loaded.result == huge
    with engine.connect() as conn:
        tokens = conn.execute(text("SELECT input_tokens FROM metallm.interactions")).scalar_one()
        assert tokens == 10**12
        conn.execute(text("SELECT * FROM metallm.attempts")).all()


def test_a_large_batch_is_saved_and_streamed(engine: Engine, sample: Sample) -> None:
    """Two thousand queries at once, and more text than one JSON argument may hold."""
    long_answer = "x" * 900_000
    events = [sample.decision(i) for i in range(2_000)]
    _join(engine, *events, *(sample.result(i, text=long_answer) for i in range(40)))
    with engine.connect() as conn:
        streamed = {item.query_id: item for item in stream_interactions(conn, batch=100)}
    assert len(streamed) == 2_000
    assert all(item.decision == events[int(name[1:])] for name, item in streamed.items())
    assert sum(item.result is not None for item in streamed.values()) == 40


def test_of_two_learners_exactly_one_sees_a_query_become_complete(
    engine: Engine, sample: Sample
) -> None:
    """The second waits for the first to commit, and then sees what it wrote."""
    started = threading.Event()

    def second() -> Interaction | None:
        with engine.begin() as conn:
            started.set()
            return load_for_update(conn, ["q1"], TODAY)["q1"][1]

    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as conn:
            day, before = load_for_update(conn, ["q1"], TODAY)["q1"]
            waiting = pool.submit(second)
            started.wait(10)
            _until_someone_waits(engine)
            assert before is None
            decided = Interaction("q1").merged(sample.decision(1))
            save_interactions(conn, [(day, decided)])
        assert waiting.result(10) == decided
        with engine.begin() as conn:
            load_for_update(conn, ["q1"], TODAY)
            again = pool.submit(second)
            _until_someone_waits(engine)
            save_interactions(conn, [(day, decided.merged(sample.result(1)))])
        assert again.result(10) == decided.merged(sample.result(1))


def test_learners_with_overlapping_queries_neither_deadlock_nor_lose_events(
    engine: Engine, sample: Sample
) -> None:
    """Six learners take shuffled parts of the same queries; every query ends complete."""
    queries = 60
    parts = [
        part
        for i in range(queries)
        for part in (sample.decision(i), sample.result(i), sample.feedback(i))
    ]
    random.Random(5).shuffle(parts)

    def learn(own: list) -> int:
        completed = 0
        for begin in range(0, len(own), 10):
            batch = own[begin : begin + 10]
            with engine.begin() as conn:
                known = load_for_update(conn, [event.query_id for event in batch], TODAY)
                after = {name: before or Interaction(name) for name, (_, before) in known.items()}
                for event in batch:
                    after[event.query_id] = after[event.query_id].merged(event)
                completed += sum(
                    item.judged().quality is not None
                    and (known[name][1] is None or known[name][1].judged().quality is None)
                    for name, item in after.items()
                )
                save_interactions(conn, [(known[name][0], item) for name, item in after.items()])
        return completed

    with ThreadPoolExecutor(6) as pool:
        completed = sum(pool.map(learn, [parts[i::6] for i in range(6)]))
    assert completed == queries
    with engine.connect() as conn:
        found = {item.query_id: item for item in stream_interactions(conn)}
    assert found == {f"q{i}": sample.whole(i) for i in range(queries)}


def _until_someone_waits(engine: Engine) -> None:
    """Return once a session of this database waits for a lock."""
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    while datetime.now(UTC) < deadline:
        with engine.connect() as conn:
            if conn.execute(waiting).scalar_one():
                return
    raise AssertionError("nobody waits for a lock")
