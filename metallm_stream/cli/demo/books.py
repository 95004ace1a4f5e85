"""What others have written down about a stream: the learner in PostgreSQL, the vendor in its book.

Invariant: read as they are; whether they agree with the topics is for `checks` to say.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, text

from metallm_stream.postgres import load_offsets

ROWS = text(
    "SELECT query_id, quality, cost_usd, decision IS NOT NULL AS is_decided, "
    "result IS NOT NULL AS is_answered FROM metallm.interactions"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One query's interaction, as SQL has it."""

    query_id: str
    quality: float | None
    cost_usd: float | None
    is_decided: bool
    is_answered: bool


@dataclass(frozen=True)
class Ledger:
    """The vendor's book, in USD: what first deliveries cost, and what repeated ones cost on top."""

    requests: int = 0
    failed: int = 0
    first_usd: float = 0.0
    repeated: int = 0
    repeated_usd: float = 0.0


@dataclass(frozen=True)
class Rebuild:
    """The largest relative difference of the live model from the one computed anew."""

    from_rows: float
    from_log: float

    @property
    def largest(self) -> float:
        """The larger of the two."""
        return max(self.from_rows, self.from_log)


@dataclass(frozen=True)
class Books:
    """Everything that is compared with the topics.

    Attributes
    ----------
    rows
        Interactions by query_id.
    next_offsets
        The learner's first unread offset by topic and partition.
    ledger
        The vendor's book.
    labels_in_model
        How many labels the live model says that it has learned from.
    rebuild
        The live model beside the rebuilt one.
    """

    rows: Mapping[str, Row]
    next_offsets: Mapping[tuple[str, int], int]
    ledger: Ledger
    labels_in_model: float
    rebuild: Rebuild


def read_rows(engine: Engine) -> tuple[dict[str, Row], dict[tuple[str, int], int]]:
    """All interactions, and how far the learner has read."""
    with engine.connect() as conn:
        rows = {row["query_id"]: Row(**row) for row in conn.execute(ROWS).mappings()}
        return rows, load_offsets(conn)


def read_ledger(path: Path) -> Ledger:
    """Add up the vendor's book; a charge beyond the first of one call at one model is repeated."""
    entries = [json.loads(line) for line in path.read_bytes().splitlines()]
    first: dict[tuple[str, str], float] = {}
    repeated: list[float] = []
    for entry in entries:
        key = entry["idempotency_key"], entry["model"]
        if entry["charged"] and key in first:
            repeated.append(entry["cost_usd"])
        elif entry["charged"]:
            first[key] = entry["cost_usd"]
    return Ledger(
        requests=len(entries),
        failed=sum(entry["fault"] is not None for entry in entries),
        first_usd=math.fsum(first.values()),
        repeated=len(repeated),
        repeated_usd=math.fsum(repeated),
    )
