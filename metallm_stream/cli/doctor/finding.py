"""What a check found.

Invariant: an error of the surroundings ends the check it happened in, and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from confluent_kafka import KafkaException
from sqlalchemy.exc import DBAPIError

from metallm_stream.cli.complaints import NO_TABLES, one_line
from metallm_stream.errors import MetallmError


class State(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the report; `remedy` is what to do about it."""

    state: State
    about: str
    said: str
    remedy: str | None = None


def ok(about: str, said: str) -> Finding:
    """All is well."""
    return Finding(State.OK, about, said)


def warning(about: str, said: str, remedy: str) -> Finding:
    """It works, or will not for some."""
    return Finding(State.WARNING, about, said, remedy)


def problem(about: str, said: str, remedy: str | None = None) -> Finding:
    """It does not work; where the remedy is missing, what was said has it."""
    return Finding(State.PROBLEM, about, said, remedy)


def guarded(about: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """A check's findings; the error that ends it is one more."""
    try:
        yield from check()
    except MetallmError as exc:
        yield problem(about, str(exc))
    except KafkaException as exc:
        yield problem(about, exc.args[0].str(), "see the brokers' logs and access rights")
    except DBAPIError as exc:
        lacking = isinstance(exc.orig, NO_TABLES)
        remedy = "metallm db upgrade" if lacking else "see PostgreSQL's log and access rights"
        yield problem(about, one_line(exc.orig or exc), remedy)
