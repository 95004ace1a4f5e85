"""Bringing a database to the tables that this release expects.

Invariant: one migration runs at a time, whole or not at all.
"""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from pydantic import SecretStr
from sqlalchemy import Connection, text

from metallm_stream.errors import ConfigurationError
from metallm_stream.postgres.installed import (
    connected,
    have_roles,
    known_revisions,
    migrations,
    refuse_newer,
    revision,
)

OLDEST_SERVER = 150_000

_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('metallm'), hashtext('migrate'))")
_SERVER = text("SELECT current_setting('server_version_num')::integer")
_ENCODING = text("SHOW server_encoding")


def migrate(url: SecretStr | str) -> str:
    """Run all migrations that this database lacks; returns the revision it has then.

    Raises `ConfigurationError` if the server is too old, the database is newer than the code, or it
    cannot hold every text.
    """
    with connected(url) as conn:
        conn.execute(_LOCK)
        server = conn.execute(_SERVER).scalar_one()
        if server < OLDEST_SERVER:
            raise ConfigurationError(
                f"PostgreSQL {server // 10_000} is too old; {OLDEST_SERVER // 10_000} or newer is "
                "needed"
            )
        if (encoding := conn.execute(_ENCODING).scalar_one()) != "UTF8":
            raise ConfigurationError(
                f"the database's encoding is {encoding}, which cannot hold every text: make one "
                "with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
            )
        refuse_newer(revision(conn), known_revisions())
        config = _config()
        config.attributes["connection"] = conn
        command.upgrade(config, "head")
        return revision(conn) or ""


def run_script(conn: Connection, script: str) -> None:
    """Run several statements as they stand: no parameters, percent signs untouched."""
    conn.exec_driver_sql(script, execution_options={"no_parameters": True})


def run_files(conn: Connection, revision: str, *parts: str) -> None:
    """Run the frozen SQL of a revision: its parts, of which `roles` waits for the group roles.

    Where there are none an administrator makes them, with all rights, by `metallm db roles`.
    """
    for part in parts:
        if part != "roles" or have_roles(conn):
            script = migrations() / "sql" / f"{revision}_{part}.sql"
            run_script(conn, script.read_text(encoding="utf-8"))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    return config
