"""What the service's role and the analyst's may do, tried by users who have them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import date, timedelta

import psycopg
import pytest
import yaml
from sqlalchemy import Engine, NullPool, create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError

from metallm_stream.cli.doctor.database import usable
from metallm_stream.events import Model
from metallm_stream.postgres import (
    Advance,
    DeadLetter,
    advance,
    check_revision,
    claim_encoder,
    claim_partition,
    claim_slot,
    drop_days_before,
    ensure_day,
    load_for_update,
    next_policy_version,
    open_engine,
    save_dead_letters,
    save_interactions,
    save_model,
    save_sums,
    stream_interactions,
)
from metallm_stream.serve.process import database_refusal
from tests.containers import COMPOSE
from tests.integration.conftest import DIMENSIONS, Sample

TODAY = date(2026, 3, 1)
VIEWS = (
    "attempts", "arm_events", "arms", "arms_by_task", "arms_over_time", "policy_now", "spend",
    "savings", "lag", "dead_letters", "dead_letter_counts", "learning_curve",
    "outcomes", "policy_values",
)  # fmt: skip
TABLES = ("offsets", "slots", "sums", "encoder", "query_days", "policies", "dead_records", "models")


def _user(database: str, role: str) -> Iterator[str]:
    """URL of a fresh login that has the role and nothing else."""
    name, password = f"user_{secrets.token_hex(6)}", secrets.token_hex(8)
    admin = create_engine(database, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as conn:
        conn.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE {role}"))
    url = make_url(database).set(username=name, password=password)
    yield url.render_as_string(hide_password=False)
    with admin.connect() as conn:
        conn.execute(text(f"DROP ROLE {name}"))


@pytest.fixture
def service_url(database: str) -> Iterator[str]:
    """A user for the learner."""
    yield from _user(database, "metallm_service")


@pytest.fixture
def service(service_url: str) -> Iterator[Engine]:
    """Connections as the learner's user."""
    engine = open_engine(service_url, application_name="service")
    yield engine
    engine.dispose()


@pytest.fixture
def analyst(database: str) -> Iterator[Engine]:
    """Connections as an analyst."""
    for url in _user(database, "metallm_analyst"):
        engine = open_engine(url, application_name="analyst")
        yield engine
        engine.dispose()


def test_the_service_can_do_all_of_its_work(
    service: Engine, service_url: str, sample: Sample
) -> None:
    """A whole batch, new days, retention, policies: without any right on the schema."""
    check_revision(service_url)
    with service.begin() as conn:
        claim_encoder(conn, "test", DIMENSIONS)
        lease = claim_slot(conn, "0")
        position = claim_partition(conn, "decisions", 0)
        ensure_day(conn, TODAY + timedelta(1))
        save_model(conn, "mini", Model(arm="mini", provider="openai", model="m"))
        assert next_policy_version(conn, above=7) == 8
    with service.begin() as conn:
        advance(conn, [Advance(position, 1)])
        assert load_for_update(conn, ["q1"], TODAY) == {"q1": (TODAY, None)}
        save_interactions(conn, [(TODAY, sample.whole(1))])
        save_sums(conn, lease, {"mini": b"sums"})
        save_dead_letters(conn, [DeadLetter("queries", 0, 0, "learner", sample.start, "bad")])
    with service.begin() as conn:
        assert list(stream_interactions(conn)) == [sample.whole(1)]
        assert len(conn.execute(text("SELECT * FROM metallm.explain('q1')")).all()) == 2
        dropped = drop_days_before(conn, TODAY + timedelta(2), "test", DIMENSIONS)
        assert dropped.days == (TODAY, TODAY + timedelta(1))


FORBIDDEN_TO_THE_SERVICE = (
    "CREATE TABLE metallm.mine (a integer)",
    "DROP TABLE metallm.sums",
    "ALTER TABLE metallm.interactions ADD COLUMN a integer",
    "TRUNCATE metallm.interactions",
    "CREATE FUNCTION metallm.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "UPDATE metallm.alembic_version SET version_num = 'x'",
)


def test_the_service_cannot_change_tables(service: Engine) -> None:
    """Neither make, alter nor drop anything, but through the functions for partitions."""
    for statement in FORBIDDEN_TO_THE_SERVICE:
        _denied(service, statement)


@pytest.mark.parametrize("table", ["interactions", "shifts"])
def test_rows_that_are_hidden_are_refused_aloud(
    service: Engine, engine: Engine, table: str
) -> None:
    """Left out without a word, they would be learned again, or forgotten."""
    assert not list(usable(service))
    with engine.begin() as conn:
        conn.execute(text(f"ALTER TABLE metallm.{table} ENABLE ROW LEVEL SECURITY"))
    hidden = pytest.raises(ProgrammingError, match=f'row-level security policy for table "{table}')
    with hidden as refused, service.begin() as conn:
        conn.execute(text(f"TABLE metallm.{table}"))
    assert "`metallm doctor` tells more" in str(database_refusal(refused.value))
    assert f"in force on {table}: learners end" in next(usable(service)).said


def test_a_revision_that_is_hidden_is_refused_aloud(service_url: str, engine: Engine) -> None:
    """It is not taken for a database without our tables."""
    with engine.begin() as conn:
        conn.execute(text("ALTER TABLE metallm.alembic_version ENABLE ROW LEVEL SECURITY"))
    with pytest.raises(ProgrammingError, match="row-level security policy for table"):
        check_revision(service_url)


def test_what_hides_rows_of_one_day_alone_is_no_problem(service: Engine, engine: Engine) -> None:
    """All days are read as one table, by its policies."""
    with engine.begin() as conn:
        ensure_day(conn, TODAY)
        conn.execute(text("ALTER TABLE metallm.interactions_20260301 ENABLE ROW LEVEL SECURITY"))
    assert not list(usable(service))


def test_the_analyst_reads_views_and_interactions(
    analyst: Engine, engine: Engine, sample: Sample
) -> None:
    """Every view, the function behind `explain`, and the joined rows."""
    with engine.begin() as conn:
        load_for_update(conn, ["q1"], TODAY)
        save_interactions(conn, [(TODAY, sample.whole(1))])
    with analyst.connect() as conn:
        for view in VIEWS:
            conn.execute(text(f"TABLE metallm.{view}")).all()
        assert len(conn.execute(text("SELECT * FROM metallm.explain('q1')")).all()) == 2
        rows = conn.execute(text("SELECT query_id, quality FROM metallm.interactions")).all()
        assert [tuple(row) for row in rows] == [("q1", 1.0)]


def test_the_analyst_reads_no_other_table(analyst: Engine) -> None:
    """What people should read is in the views."""
    for table in TABLES:
        _denied(analyst, f"TABLE metallm.{table}")


FORBIDDEN_TO_ANALYSTS = (
    "UPDATE metallm.interactions SET quality = 1",
    "DELETE FROM metallm.interactions",
    "INSERT INTO metallm.models (arm, record) VALUES ('a', '{}')",
    "SELECT metallm.ensure_day('2026-01-01')",
    "SELECT metallm.drop_day('2026-01-01')",
    "SELECT nextval('metallm.policy_version')",
)


def test_the_analyst_changes_nothing(analyst: Engine) -> None:
    """Neither rows nor partitions."""
    for statement in FORBIDDEN_TO_ANALYSTS:
        _denied(analyst, statement)


def test_the_composed_learners_user_is_the_service(database: str) -> None:
    """As docker-compose.yml makes it with psql, also when it is there, with the password given."""
    service = yaml.safe_load(COMPOSE.read_text())["services"]["learner-user"]
    psql, *arguments = service["command"]
    assert psql == "psql"
    owner = make_url(database)
    for password in ("old1", "new2"):
        with psycopg.connect(
            host=owner.host, port=owner.port, dbname=owner.database, user=owner.username,
            password=owner.password, autocommit=True,
        ) as conn:  # fmt: skip
            for argument in arguments[1:]:
                command = argument.removeprefix("--command=")
                conn.execute(command.replace("${LEARNER_PASSWORD}", password))
    learner = owner.set(username="learner", password="new2")  # noqa: S106 - made here
    check_revision(learner.render_as_string(hide_password=False))
    engine = open_engine(learner.render_as_string(hide_password=False), application_name="learner")
    with engine.begin() as conn:
        claim_slot(conn, "0")
    _denied(engine, "DROP TABLE metallm.sums")
    engine.dispose()
    admin = create_engine(database, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as conn:
        conn.execute(text("DROP ROLE learner"))


def test_a_user_without_a_role_sees_nothing(database: str) -> None:
    """PUBLIC has no rights in the schema, and may not call its functions."""
    for url in _user(database, "pg_read_all_settings"):
        engine = open_engine(url, application_name="stranger")
        for statement in ("SELECT * FROM metallm.arms", "SELECT metallm.drop_day('2026-01-01')"):
            _denied(engine, statement)
        engine.dispose()


def _denied(engine: Engine, statement: str) -> None:
    denied = pytest.raises(ProgrammingError, match=r"permission denied|must be owner")
    with denied, engine.begin() as conn:
        conn.execute(text(statement))
