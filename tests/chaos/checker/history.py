"""What users can see of a stream: the topics, SQL, the vendor's book, and what befell it.

Invariant: plain records, nothing of the service's own parsing, so that a fault there cannot hide
itself; and nothing is judged here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

INTENT = "chaos.intent"
BAD = "bad"


@dataclass(frozen=True)
class Seen:
    """One committed record as a stranger reads it.

    Attributes
    ----------
    topic
        Without the prefix: `queries`, `calls.recorded`, `queries.dlq`.
    at_s
        The record's own time, seconds since the epoch.
    value
        The JSON object in it; None where there is none.
    """

    topic: str
    partition: int
    offset: int
    at_s: float
    key: str
    value: Mapping[str, Any] | None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def query_id(self) -> str:
        """Whose record it is; empty where nobody can tell."""
        value = self.value or {}
        inner = value.get("query")
        found = (inner if isinstance(inner, dict) else value).get("query_id", "")
        return found if isinstance(found, str) else ""

    @property
    def is_bad(self) -> bool:
        """Whether its sender meant it to be refused."""
        return self.headers.get(INTENT) == BAD

    @property
    def place(self) -> tuple[str, int, int]:
        """Topic, partition and offset."""
        return self.topic, self.partition, self.offset


@dataclass(frozen=True)
class Progress:
    """A position as it was seen while the stream ran: it may stay or grow."""

    at_s: float
    whose: str
    where: str
    position: int


@dataclass(frozen=True)
class Event:
    """Something that was done to the system from outside."""

    at_s: float
    what: str


@dataclass(frozen=True)
class Account:
    """What SQL says that a budget has taken in, for one value of its metadata key."""

    queries: int
    spent_usd: float
    reserved_usd: float


@dataclass(frozen=True)
class History:
    """A whole stream, after its end.

    Attributes
    ----------
    asked
        Ids of the queries whose records the brokers have acknowledged.
    records
        All committed records of all topics.
    rows
        `metallm.interactions` by query_id.
    dead_rows
        Topic (without prefix), partition and offset of each of `metallm.dead_letters`.
    ledger, judge_ledger
        The vendor's book, a line a request; those for the judge model apart.
    accounts
        Each budget's, by its name and the value of its metadata key.
    judges_usd
        The total of the view `judges`.
    observations
        Labels in the live model, by arm.
    shifts
        How many rows the view `drift` has: from then on older labels count less.
    differences
        Relative difference of the live model from one that was computed anew, by its source.
    spend_usd
        The total of the view `spend`.
    progress
        Positions in the order in which they were seen.
    events
        What was done to the system.
    """

    asked: frozenset[str]
    records: tuple[Seen, ...]
    rows: Mapping[str, Mapping[str, Any]]
    dead_rows: tuple[tuple[str, int, int], ...]
    ledger: tuple[Mapping[str, Any], ...]
    judge_ledger: tuple[Mapping[str, Any], ...]
    accounts: Mapping[tuple[str, str], Account]
    judges_usd: float
    observations: Mapping[str, float]
    shifts: int
    differences: Mapping[str, float]
    spend_usd: float
    progress: tuple[Progress, ...] = ()
    events: tuple[Event, ...] = ()

    def of(self, topic: str) -> list[Seen]:
        """The records of one topic; `calls` stands for those of every provider."""
        return [item for item in self.records if topic in (item.topic, _kind(item.topic))]

    def accepted(self) -> dict[str, Seen]:
        """The first good record of each query."""
        first: dict[str, Seen] = {}
        for item in sorted(self.of("queries"), key=lambda seen: (seen.partition, seen.offset)):
            if not item.is_bad:
                first.setdefault(item.query_id, item)
        return first

    def refused(self) -> set[tuple[str, int, int]]:
        """Where the records stand that must become dead letters."""
        return {item.place for item in (*self.of("queries"), *self.of("feedback")) if item.is_bad}


@dataclass(frozen=True)
class Violation:
    """A guarantee that does not hold, and whose story shows it."""

    kind: str
    message: str
    query_id: str = ""


def by_query(records: Iterable[Seen]) -> dict[str, list[Seen]]:
    """Records by the id of their query."""
    found: dict[str, list[Seen]] = defaultdict(list)
    for item in records:
        found[item.query_id].append(item)
    return dict(found)


def _kind(topic: str) -> str:
    """`calls` for the calls of any provider."""
    return "calls" if topic.startswith("calls.") and not topic.endswith(".dlq") else topic
