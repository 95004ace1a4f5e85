"""Bringing a database to the tables that this release expects, and seeing whether it is there.

Invariant: one migration runs at a time, whole or not at all; a service never starts on a
database that is older or newer than its code.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from metallm_stream.errors import ConfigurationError
from metallm_stream.postgres.engine import CONNECT_TIMEOUT_S, database_url
from metallm_stream.postgres.tables import SCHEMA

PACKAGE = Path(__file__).parent.parent
PLACES = (PACKAGE / "_installed" / "migrations", PACKAGE.parent / "migrations")
VERSION_TABLE = "alembic_version"
OLDEST_SERVER = 150_000

_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('metallm'), hashtext('migrate'))")
_SERVER = text("SELECT current_setting('server_version_num')::integer")
_HAS_VERSION = text(f"SELECT to_regclass('{SCHEMA}.{VERSION_TABLE}') IS NOT NULL")
_VERSION = text(f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}")  # noqa: S608
_ROLES = text(
    "SELECT count(*) FROM pg_roles WHERE rolname IN ('metallm_service', 'metallm_analyst')"
)


def migrate(url: SecretStr | str) -> str:
    """Run all migrations that this database lacks; returns the revision it has then.

    Raises `ConfigurationError` if the server is too old or the database is newer than the code.
    """
    with _connected(url) as conn:
        conn.execute(_LOCK)
        server = conn.execute(_SERVER).scalar_one()
        if server < OLDEST_SERVER:
            raise ConfigurationError(
                f"PostgreSQL {server // 10_000} is too old; {OLDEST_SERVER // 10_000} or newer is "
                "needed"
            )
        _refuse_newer(_revision(conn), _known_revisions(), head_revision())
        config = _config()
        config.attributes["connection"] = conn
        command.upgrade(config, "head")
        return _revision(conn) or ""


def current_revision(url: SecretStr | str) -> str | None:
    """The database's revision, or None where nothing was migrated yet."""
    with _connected(url) as conn:
        return _revision(conn)


def head_revision() -> str:
    """The revision that this code expects."""
    return str(_scripts().get_current_head())


def check_revision(url: SecretStr | str) -> None:
    """See that the database fits the code; raises `ConfigurationError` with the way out."""
    require_revision(current_revision(url), _known_revisions(), head_revision())


def require_revision(found: str | None, known: Collection[str], head: str) -> None:
    """Raise `ConfigurationError` unless the database's revision is the `head` of those known.

    >>> require_revision("0002", {"0001", "0002"}, "0002")
    """
    if found is None:
        raise ConfigurationError("the database has no metallm tables: run `metallm db upgrade`")
    _refuse_newer(found, known, head)
    if found != head:
        raise ConfigurationError(
            f"the database is at revision {found}, this release needs {head}: run "
            "`metallm db upgrade`"
        )


def roles_exist(url: SecretStr | str) -> bool:
    """Whether the two group roles exist, which a migration by a user without CREATEROLE skips."""
    with _connected(url) as conn:
        return bool(conn.execute(_ROLES).scalar_one() == 2)


def roles_sql() -> str:
    """The script that makes the group roles and gives them their rights; safe to run again."""
    return (files("metallm_stream.postgres") / "sql" / "roles.sql").read_text(encoding="utf-8")


def run_script(conn: Connection, script: str) -> None:
    """Run several statements as they stand: no parameters, percent signs untouched."""
    conn.exec_driver_sql(script, execution_options={"no_parameters": True})


def _refuse_newer(found: str | None, known: Collection[str], head: str) -> None:
    if found is not None and found not in known:
        raise ConfigurationError(
            f"the database is at revision {found}, which this release does not know (it ends at "
            f"{head}): upgrade the service"
        )


def _known_revisions() -> set[str]:
    return {str(script.revision) for script in _scripts().walk_revisions()}


@contextmanager
def _connected(url: SecretStr | str) -> Iterator[Connection]:
    """A connection in one transaction, without the services' timeouts: migrations take long.

    Raises `ConfigurationError` if there is none to be had: a wrong password, or nobody there.
    """
    engine = create_engine(
        database_url(url),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"application_name": "metallm-db", "connect_timeout": CONNECT_TIMEOUT_S},
    )
    try:
        conn = engine.connect()
    except OperationalError as exc:
        said = str(exc.orig).strip().partition("\n")[0]
        raise ConfigurationError(
            f"PostgreSQL cannot be used: {said}; is DATABASE_URL right, and is it running?"
        ) from None
    with conn, conn.begin():
        yield conn


def _revision(conn: Connection) -> str | None:
    if not conn.execute(_HAS_VERSION).scalar_one():
        return None
    return conn.execute(_VERSION).scalar_one_or_none()


def _config() -> Config:
    place = next((path for path in PLACES if (path / "env.py").is_file()), None)
    if place is None:
        raise ConfigurationError(
            "the migrations are missing from this installation: reinstall metallm-stream"
        )
    config = Config()
    config.set_main_option("script_location", str(place).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
