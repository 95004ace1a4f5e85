"""Errors that a user can mend, each in one line with the way out.

Invariant: no line repeats a secret, and an error that is ours to mend keeps its traceback.
"""

from __future__ import annotations

from confluent_kafka import KafkaException
from psycopg import errors as postgres
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError, OperationalError

from metallm_stream.errors import MetallmError, Unreachable
from metallm_stream.events import explain
from metallm_stream.kafka import explained
from metallm_stream.serve.process import database_refusal

NO_TABLES = (
    postgres.UndefinedTable,
    postgres.UndefinedColumn,
    postgres.UndefinedFunction,
    postgres.InvalidSchemaName,
)


def complaint(error: Exception, command: str) -> str | None:
    """The line for an error that ended `command`, or None for one that needs its traceback."""
    match error:
        case MetallmError():
            return str(error)
        case ValidationError():
            return f"{explain(error)}; see `{command} --help`"
        case KafkaException():
            return kafka_complaint(error)
        case DBAPIError():
            return database_complaint(error)
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        case _:
            return None


def kafka_complaint(error: KafkaException) -> str:
    """What Kafka said, and where to look."""
    said = error.args[0]
    told = explained(said)
    if isinstance(told, Unreachable):
        return (
            f"{told}; is KAFKA_BOOTSTRAP_SERVERS right, and is it running? `metallm doctor` tells "
            "more"
        )
    return f"{told or f'Kafka refused: {said.str()}'}; `metallm doctor` tells more"


def database_complaint(error: DBAPIError) -> str | None:
    """What PostgreSQL or its driver said, and where to look; None for a statement of ours."""
    said = one_line(error.orig or error)
    if isinstance(error.orig, NO_TABLES):
        return f"PostgreSQL lacks what this release needs ({said}): run `metallm db upgrade`"
    if (refusal := database_refusal(error)) is not None:
        return str(refusal)
    if isinstance(error, OperationalError):
        return (
            f"PostgreSQL cannot be used: {said}; is DATABASE_URL right, and is it running? "
            "`metallm doctor` tells more"
        )
    return None


def one_line(error: BaseException) -> str:
    r"""The error's first line, and the second where the first only announces it.

    >>> one_line(ValueError("no such thing\nLINE 1: SELECT"))
    'no such thing'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
