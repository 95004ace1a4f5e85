"""Offsets and sums move only for whoever claimed them last."""

from __future__ import annotations

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from metallm_stream.cli.database import database
from metallm_stream.errors import ConfigurationError, Fenced
from metallm_stream.postgres import (
    ARCHIVE_SLOT,
    Advance,
    Position,
    SlotLease,
    advance,
    claim_encoder,
    claim_partition,
    claim_slot,
    load_offsets,
    load_slot_sums,
    load_sums,
    save_sums,
    slot_versions,
)
from metallm_stream.settings import Settings


def test_a_new_partition_starts_at_the_low_watermark_and_an_old_one_where_it_stood(
    engine: Engine,
) -> None:
    """The log's begin counts only the first time; after that the stored offset does."""
    with engine.begin() as conn:
        first = claim_partition(conn, "decisions", 0, low_watermark=7)
    assert first == Position("decisions", 0, epoch=1, next_offset=7)
    with engine.begin() as conn:
        advance(conn, [Advance(first, 20, high_watermark=25)])
    with engine.begin() as conn:
        again = claim_partition(conn, "decisions", 0, low_watermark=99)
    assert again == Position("decisions", 0, epoch=2, next_offset=20)


def test_an_owner_advances_step_by_step(engine: Engine) -> None:
    """Each committed step is the base of the next, in many partitions at a time."""
    with engine.begin() as conn:
        held = [claim_partition(conn, "results", number) for number in range(5)]
    for step in (10, 25):
        moves = [Advance(position, step + position.partition) for position in held]
        with engine.begin() as conn:
            advance(conn, moves)
        held = [move.after for move in moves]
    with engine.connect() as conn:
        assert load_offsets(conn) == {("results", number): 25 + number for number in range(5)}


def test_nothing_to_advance_is_no_statement(engine: Engine) -> None:
    """A batch of nothing changes nothing."""
    with engine.begin() as conn:
        advance(conn, [])
        assert load_offsets(conn) == {}


def test_a_former_owner_is_fenced_and_nothing_of_its_batch_stays(engine: Engine) -> None:
    """A claim bumps the epoch; the older owner's whole transaction is rolled back."""
    with engine.begin() as conn:
        mine = claim_partition(conn, "decisions", 0)
        kept = claim_partition(conn, "decisions", 1)
        claim_partition(conn, "decisions", 0)
    with pytest.raises(Fenced, match=r"decisions\[0\]$"), engine.begin() as conn:
        advance(conn, [Advance(mine, 5), Advance(kept, 5)])
    with engine.connect() as conn:
        assert load_offsets(conn) == {("decisions", 0): 0, ("decisions", 1): 0}


@pytest.mark.parametrize("new", [4, 0])
def test_an_offset_never_goes_back(engine: Engine, new: int) -> None:
    """Also the rightful owner cannot unread."""
    with engine.begin() as conn:
        held = claim_partition(conn, "decisions", 0, low_watermark=5)
    with pytest.raises(Fenced), engine.begin() as conn:
        advance(conn, [Advance(held, new)])


def test_a_batch_cannot_be_learned_twice(engine: Engine) -> None:
    """The same step again finds another offset than it expects."""
    with engine.begin() as conn:
        step = Advance(claim_partition(conn, "decisions", 0), 10)
        advance(conn, [step])
    with pytest.raises(Fenced), engine.begin() as conn:
        advance(conn, [step])


def test_a_position_keeps_the_topic_that_it_was_read_from(engine: Engine) -> None:
    """One without is filled in, and one that nothing was read up to belongs to any topic."""
    with engine.begin() as conn:
        assert claim_partition(conn, "decisions", 0).topic_id is None
        assert claim_partition(conn, "decisions", 0, topic_id="a").topic_id == "a"
        held = claim_partition(conn, "decisions", 0, topic_id="b")
        assert held.topic_id == "b"
        step = Advance(held, 5)
        advance(conn, [step])
        assert step.after == Position("decisions", 0, held.epoch, 5, "b")
        assert claim_partition(conn, "decisions", 0, topic_id="c").topic_id == "b"
        assert claim_partition(conn, "decisions", 0).topic_id == "b"


def test_an_unclaimed_partition_is_fenced(engine: Engine) -> None:
    """A row that is not there was not updated."""
    with pytest.raises(Fenced, match=r"results\[3\]"), engine.begin() as conn:
        advance(conn, [Advance(Position("results", 3, 1, 0), 1)])


def test_saving_sums_replaces_the_arms_given_and_keeps_the_others(engine: Engine) -> None:
    """A slot's sums are written arm by arm under one version."""
    with engine.begin() as conn:
        lease = claim_slot(conn, "0")
        assert lease == SlotLease("0", epoch=1, version=0)
        lease = save_sums(conn, lease, {"mini": b"1", "large": b"2"}, {"mini": 1.0, "large": 2.0})
        lease = save_sums(conn, lease, {"mini": b"3"})
        assert lease.version == 2
        assert load_slot_sums(conn, "0") == {"mini": b"3", "large": b"2"}


def test_a_claimed_slot_fences_the_process_before(engine: Engine) -> None:
    """Two processes with one slot cannot both save."""
    with engine.begin() as conn:
        older = claim_slot(conn, "0")
        newer = claim_slot(conn, "0")
        assert (newer.epoch, newer.version) == (older.epoch + 1, older.version)
    with pytest.raises(Fenced, match="slot '0'"), engine.begin() as conn:
        save_sums(conn, older, {"mini": b"old"})
    with engine.begin() as conn:
        save_sums(conn, newer, {"mini": b"new"})
        assert load_sums(conn) == {"0": {"mini": b"new"}}


def test_a_lease_saves_once(engine: Engine) -> None:
    """Sums computed from an older version than the stored one are refused."""
    with engine.begin() as conn:
        lease = claim_slot(conn, "0")
        save_sums(conn, lease, {})
    with pytest.raises(Fenced), engine.begin() as conn:
        save_sums(conn, lease, {"mini": b"stale"})


def test_versions_tell_which_slots_changed(engine: Engine) -> None:
    """A learner sees cheaply whether other slots' sums are new; the archive is no live slot."""
    with engine.begin() as conn:
        one, two = claim_slot(conn, "one"), claim_slot(conn, "two")
        archive = claim_slot(conn, ARCHIVE_SLOT)
        save_sums(conn, archive, {"mini": b"old days"})
        before = slot_versions(conn)
        save_sums(conn, two, {"mini": b"2"})
        after = slot_versions(conn)
        assert before["one"] == after["one"] == (one.epoch, 0)
        assert before["two"] != after["two"]
        assert set(after) == {"one", "two"}
        assert load_sums(conn) == {"two": {"mini": b"2"}}
        assert load_slot_sums(conn, ARCHIVE_SLOT) == {"mini": b"old days"}


@pytest.mark.parametrize(("name", "dimensions"), [("other", 128), ("wordllama-128", 64)])
def test_a_database_belongs_to_one_encoder(engine: Engine, name: str, dimensions: int) -> None:
    """Sums of two encoders are never mixed: the second is refused, with the way out."""
    with engine.begin() as conn:
        claim_encoder(conn, "wordllama-128", 128)
        claim_encoder(conn, "wordllama-128", 128)
    with pytest.raises(ConfigurationError, match="new database"), engine.begin() as conn:
        claim_encoder(conn, name, dimensions)


def test_a_command_may_take_longer_than_a_service(database_url: str) -> None:
    """Millions of decisions take minutes to be sorted, and whoever waits may interrupt."""
    settings = Settings(database_url=SecretStr(database_url))
    with database(settings, "evaluate") as engine, engine.connect() as conn:
        assert conn.execute(text("SHOW statement_timeout")).scalar_one() == "30min"


def test_services_wait_for_nothing_forever(engine: Engine) -> None:
    """Statements, locks and idle transactions have limits, and times are UTC."""
    with engine.connect() as conn:
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            limit = conn.execute(
                text("SELECT setting::integer FROM pg_settings WHERE name = :name"), {"name": name}
            )
            assert 0 < limit.scalar_one() <= 120_000
        assert conn.execute(text("SHOW timezone")).scalar_one() == "UTC"
        assert conn.execute(text("SHOW application_name")).scalar_one() == "test"
        assert conn.execute(text("SHOW transaction_isolation")).scalar_one() == "read committed"
