"""PostgreSQL as commands use it.

Invariant: no connection outlives its command.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from metallm_stream.postgres import open_engine
from metallm_stream.settings import Settings

# Whoever waits may interrupt; millions of decisions take minutes to be sorted.
STATEMENT_TIMEOUT_S = 1_800


@contextmanager
def database(settings: Settings, command: str) -> Iterator[Engine]:
    """The database that the settings describe, of one connection."""
    engine = open_engine(
        settings.database(),
        application_name=f"metallm-{command}",
        pool_size=1,
        statement_timeout_s=STATEMENT_TIMEOUT_S,
    )
    try:
        yield engine
    finally:
        engine.dispose()
