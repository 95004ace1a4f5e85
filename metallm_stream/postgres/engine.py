"""How we connect: one small pool a process, every wait bounded.

Invariant: no statement, lock or idle transaction outlives its timeout, so that a stuck process
cannot hold up the others for longer, and every transaction but a `snapshot` is READ COMMITTED: a
statement after a row lock sees what the lock's former holder committed.
"""

from __future__ import annotations

from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from metallm_stream.errors import ConfigurationError

DRIVER = "postgresql+psycopg"
STATEMENT_TIMEOUT_S = 60
LOCK_TIMEOUT_S = 20
IDLE_TIMEOUT_S = 120
CONNECT_TIMEOUT_S = 10
# What values look like in texts, whatever the role, the database or the environment says of it.
FORMATS = (
    "-c TimeZone=UTC -c DateStyle=ISO -c extra_float_digits=1 -c standard_conforming_strings=on "
    "-c array_nulls=on"
)
# Rows that a policy of the database hides are refused aloud, instead of being left out.
ALL_ROWS = "-c row_security=off"


def database_url(url: SecretStr | str) -> URL:
    """The URL with our driver; `postgres://` and `postgresql://` are understood as well.

    Raises `ConfigurationError`, which never repeats the URL since it may hold a password.

    >>> database_url("postgres://me@db.example/metallm").drivername
    'postgresql+psycopg'
    """
    try:
        parsed = make_url(url.get_secret_value() if isinstance(url, SecretStr) else url)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "DATABASE_URL is not a URL; write postgresql://user:password@host:port/database"
        ) from None
    if "@" in (parsed.host or ""):
        raise ConfigurationError("DATABASE_URL has a second @: write one in a password as %40")
    if parsed.drivername not in ("postgres", "postgresql", DRIVER):
        raise ConfigurationError(
            f"DATABASE_URL begins with {parsed.drivername}://; only postgresql:// will do"
        )
    return parsed.set(drivername=DRIVER)


def open_engine(
    url: SecretStr | str,
    *,
    application_name: str,
    pool_size: int = 3,
    statement_timeout_s: int = STATEMENT_TIMEOUT_S,
) -> Engine:
    """An engine of at most `pool_size` connections; nothing is connected before first use.

    What the URL's query says (`sslmode`, `options`, …) reaches libpq and is not overridden.
    """
    parsed = database_url(url)
    timeouts = (
        f"-c statement_timeout={statement_timeout_s}s -c lock_timeout={LOCK_TIMEOUT_S}s "
        f"-c idle_in_transaction_session_timeout={IDLE_TIMEOUT_S}s"
    )
    return create_engine(
        parsed,
        connect_args=connect_args(parsed, application_name, f"{timeouts} {FORMATS} {ALL_ROWS}"),
        isolation_level="READ COMMITTED",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_pre_ping=True,
        hide_parameters=True,
    )


def snapshot(engine: Engine) -> Connection:
    """A connection whose statements all see what the first one saw."""
    return engine.connect().execution_options(isolation_level="REPEATABLE READ")


def connect_args(parsed: URL, application_name: str, options: str) -> dict[str, str]:
    """How we connect where the URL's query does not say otherwise."""
    ours = {
        "application_name": application_name,
        "connect_timeout": str(CONNECT_TIMEOUT_S),
        "keepalives_idle": "30",
        "client_encoding": "utf8",
        "options": options,
    }
    return {name: value for name, value in ours.items() if name not in parsed.query}
