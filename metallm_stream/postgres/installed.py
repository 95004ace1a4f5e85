"""Which revision a database has, and whether it is the one that this release expects.

Invariant: a service never starts on a database that is older or newer than its code. Revisions are
known by the names of their files, since Alembic takes longer to be imported than a check may take.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from metallm_stream.errors import ConfigurationError, Unreachable
from metallm_stream.postgres.engine import ALL_ROWS, FORMATS, connect_args, database_url
from metallm_stream.postgres.tables import SCHEMA

PACKAGE = Path(__file__).parent.parent
PLACES = (PACKAGE / "_installed" / "migrations", PACKAGE.parent / "migrations")
VERSION_TABLE = "alembic_version"
NO_TIMEOUTS = "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0"

# Too new to be named in `NO_TIMEOUTS`: PostgreSQL 15 and 16 would refuse the connection.
_NO_TRANSACTION_TIMEOUT = text(
    "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'"
)
_HAS_VERSION = text(f"SELECT to_regclass('{SCHEMA}.{VERSION_TABLE}') IS NOT NULL")
_VERSION = text(f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}")  # noqa: S608
_ROLES = text(
    "SELECT count(*) FROM pg_roles WHERE rolname IN ('metallm_service', 'metallm_analyst')"
)


def migrations() -> Path:
    """Where this installation's migrations are."""
    first = Path("versions") / "0001_start.py"
    place = next((path for path in PLACES if (path / first).is_file()), None)
    if place is None:
        raise ConfigurationError(
            "the migrations are missing from this installation: reinstall metallm-stream"
        )
    return place


def known_revisions() -> set[str]:
    """The revisions of this release, `0001` to the newest: a script is called `<revision>_*.py`."""
    scripts = (migrations() / "versions").glob("[0-9][0-9][0-9][0-9]_*.py")
    return {script.name.partition("_")[0] for script in scripts}


def head_revision() -> str:
    """The revision that this code expects."""
    return max(known_revisions())


def current_revision(url: SecretStr | str) -> str | None:
    """The database's revision, or None where nothing was migrated yet."""
    with connected(url) as conn:
        return revision(conn)


def check_revision(url: SecretStr | str) -> None:
    """See that the database fits the code; raises `ConfigurationError` with the way out."""
    require_revision(current_revision(url), known_revisions())


def require_revision(found: str | None, known: Collection[str]) -> None:
    """Raise `ConfigurationError` unless the database's revision is the newest of those known.

    >>> require_revision("0002", {"0001", "0002"})
    """
    if found is None:
        raise ConfigurationError("the database has no metallm tables: run `metallm db upgrade`")
    refuse_newer(found, known)
    if found != (head := max(known)):
        raise ConfigurationError(
            f"the database is at revision {found}, this release needs {head}: run "
            "`metallm db upgrade`"
        )


def roles_exist(url: SecretStr | str) -> bool:
    """Whether the two group roles exist, which a migration by a user without CREATEROLE skips."""
    with connected(url) as conn:
        return have_roles(conn)


def have_roles(conn: Connection) -> bool:
    """Whether the two group roles exist, as a connection sees it."""
    return bool(conn.execute(_ROLES).scalar_one() == 2)


def roles_sql() -> str:
    """The script that makes the group roles and gives them their rights; safe to run again."""
    return (files("metallm_stream.postgres") / "sql" / "roles.sql").read_text(encoding="utf-8")


def refuse_newer(found: str | None, known: Collection[str]) -> None:
    """Raise `ConfigurationError` if a database is at a revision that this release does not know."""
    if found is not None and found not in known:
        raise ConfigurationError(
            f"the database is at revision {found}, which this release does not know (it ends at "
            f"{max(known)}): upgrade the service"
        )


@contextmanager
def connected(url: SecretStr | str) -> Iterator[Connection]:
    """A connection in one transaction, without anybody's timeouts: migrations take long.

    Raises `Unreachable` if there is none to be had: nobody there, or a wrong password, which the
    driver does not tell apart.
    """
    parsed = database_url(url)
    engine = create_engine(
        parsed,
        isolation_level="READ COMMITTED",
        poolclass=NullPool,
        hide_parameters=True,
        connect_args=connect_args(parsed, "metallm-db", f"{NO_TIMEOUTS} {FORMATS} {ALL_ROWS}"),
    )
    try:
        conn = engine.connect()
    except OperationalError as exc:
        said = str(exc.orig).strip().partition("\n")[0]
        raise Unreachable(
            f"PostgreSQL cannot be used: {said}; is DATABASE_URL right, and is it running?"
        ) from None
    with conn, conn.begin():
        conn.execute(_NO_TRANSACTION_TIMEOUT)
        yield conn


def revision(conn: Connection) -> str | None:
    """The database's revision as a connection sees it."""
    if not conn.execute(_HAS_VERSION).scalar_one():
        return None
    return conn.execute(_VERSION).scalar_one_or_none()
