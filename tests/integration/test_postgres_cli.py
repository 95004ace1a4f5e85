"""`metallm db`, as a person runs it."""

from __future__ import annotations

from click.testing import CliRunner
from pydantic import SecretStr
from sqlalchemy import Engine, make_url, text

from metallm_stream.cli.db import db
from metallm_stream.cli.doctor.database import sums, usable
from metallm_stream.postgres import (
    check_revision,
    claim_slot,
    head_revision,
    open_engine,
    roles_sql,
    save_sums,
)


def test_upgrade_brings_an_empty_database_up_and_is_safe_to_repeat(empty_database: str) -> None:
    """The second time there is nothing to do."""
    run = CliRunner(env={"DATABASE_URL": empty_database})
    first = run.invoke(db, ["upgrade"], catch_exceptions=False)
    again = run.invoke(db, ["upgrade"], catch_exceptions=False)
    assert (first.output, again.output) == (
        f"now at revision {head_revision()}\n",
        f"already at revision {head_revision()}\n",
    )
    check_revision(SecretStr(empty_database))


def test_current_fails_before_and_succeeds_after_the_upgrade(empty_database: str) -> None:
    """With the command to run, or the revision."""
    run = CliRunner(env={"DATABASE_URL": empty_database})
    refused = run.invoke(db, ["current"], catch_exceptions=False)
    assert refused.exit_code == 1
    assert "run `metallm db upgrade`" in refused.stderr
    run.invoke(db, ["upgrade"], catch_exceptions=False)
    current = run.invoke(db, ["current"], catch_exceptions=False)
    assert current.output == f"{head_revision()} (this release needs {head_revision()})\n"


def test_roles_prints_the_script_and_needs_no_database() -> None:
    """It can be piped into psql."""
    printed = CliRunner(env={"DATABASE_URL": None}).invoke(db, ["roles"], catch_exceptions=False)
    assert printed.output == roles_sql()


def test_doctor_sees_sums_that_cannot_be_vacuumed(engine: Engine) -> None:
    """Kept for a transaction that began before they were replaced."""
    with engine.begin() as conn:
        lease = claim_slot(conn, "0")
    assert [found.state for found in sums(engine)] == ["ok"]
    with engine.connect() as forgotten:
        forgotten.execute(text("SELECT pg_current_xact_id()"))
        for size in (110_000_000, 8):
            with engine.begin() as conn:
                lease = save_sums(conn, lease, {"mini": bytes(size)})
        (found,) = sums(engine)
    assert found.state == "warning"
    assert "MB on disk, 0.0 MB in force: somebody's transaction has been open" in found.said
    assert "pg_stat_activity" in str(found.remedy)


def test_doctor_sees_a_database_that_takes_no_writes(database: str) -> None:
    """As a standby does."""
    url = make_url(database).update_query_dict({"options": "-c default_transaction_read_only=on"})
    reader = open_engine(url.render_as_string(hide_password=False), application_name="test")
    assert [found.said for found in usable(reader)] == ["takes no writes"]
    reader.dispose()
