"""What an administrator has set for a database or a role changes nothing that is stored or read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from metallm_stream.errors import ConfigurationError
from metallm_stream.postgres import (
    Advance,
    advance,
    claim_half_life,
    claim_partition,
    claim_slot,
    head_revision,
    load_for_update,
    load_slot_sums,
    open_engine,
    save_interactions,
    save_sums,
    stream_interactions,
)
from metallm_stream.postgres.installed import connected
from metallm_stream.postgres.migrate import migrate
from tests.integration.conftest import Sample
from tests.pipeline import fresh_database

TODAY = date(2026, 3, 1)
BYTES = bytes(range(256)) + b"\\\\x5c'"
HALF_LIFE_S = 100_000 / 3
SETTINGS = (
    "array_nulls = off",
    "bytea_output = 'escape'",
    "client_encoding = 'LATIN1'",
    "datestyle = 'German'",
    "default_transaction_isolation = 'serializable'",
    "extra_float_digits = 0",
    "search_path = 'elsewhere'",
    "standard_conforming_strings = off",
    "statement_timeout = '1ms'",
    "timezone = 'Pacific/Chatham'",
)


def _administrate(url: str, statement: str) -> None:
    admin = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as conn:
        conn.execute(text(statement))


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_of_the_database_change_nothing(
    database_url: str, sample: Sample, setting: str
) -> None:
    """Tables are made, and bytes, texts, times and numbers come back as they were."""
    whole = sample.whole(1).merged(sample.feedback(1, label="日本 \\n'", feedback_id="x"))
    with fresh_database(database_url) as url:
        _administrate(url, f"ALTER DATABASE {make_url(url).database} SET {setting}")
        migrate(url)
        engine = open_engine(url, application_name="test")
        with engine.begin() as conn:
            claim_half_life(conn, HALF_LIFE_S)
            save_sums(conn, claim_slot(conn, "0"), {"mini": BYTES})
            advance(conn, [Advance(claim_partition(conn, "decisions", 0), 1)])
            load_for_update(conn, ["q1"], TODAY)
            save_interactions(conn, [(TODAY, whole)])
        with engine.begin() as conn:
            assert load_slot_sums(conn, "0") == {"mini": BYTES}
            clocks = "SELECT effective_at, half_life_s FROM metallm.half_lives"
            assert conn.execute(text(clocks)).one() == (datetime.fromtimestamp(0, UTC), HALF_LIFE_S)
            assert list(stream_interactions(conn)) == [whole]
        engine.dispose()


def test_many_may_migrate_at_once_whatever_isolation_is_the_default(database_url: str) -> None:
    """Who has waited sees what the first has done."""
    with fresh_database(database_url) as url:
        isolation = "default_transaction_isolation = 'serializable'"
        _administrate(url, f"ALTER DATABASE {make_url(url).database} SET {isolation}")
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(migrate, [url] * 4)) == {head_revision()}


def test_migrations_may_take_longer_than_transactions(database_url: str) -> None:
    """PostgreSQL 17 and later have a limit for these."""
    with fresh_database(database_url) as url:
        name = make_url(url).database
        _administrate(url, f"ALTER DATABASE {name} SET transaction_timeout = '500ms'")
        with connected(url) as conn:
            assert conn.execute(text("SELECT true FROM pg_sleep(1)")).scalar()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_text_is_refused(
    database_url: str, encoding: str
) -> None:
    """Before there are tables, not at the first answer in another script."""
    with fresh_database(database_url) as other:
        url = make_url(database_url).set(database=f"{make_url(other).database}_{encoding.lower()}")
        _administrate(
            other,
            f"CREATE DATABASE {url.database} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'",
        )
        with pytest.raises(ConfigurationError, match=f"encoding is {encoding}, which cannot hold"):
            migrate(url.render_as_string(hide_password=False))
        _administrate(other, f"DROP DATABASE {url.database}")
