"""Tables of its own for each test, and records to put into them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, NullPool, create_engine, text

from metallm_stream.events import Candidate, Decision, Feedback, Result
from metallm_stream.join import Interaction
from metallm_stream.postgres import open_engine
from metallm_stream.postgres.migrate import migrate
from tests import records
from tests.pipeline import fresh_database
from tests.vendor_stage import Stage, open_stage

DIMENSIONS = 4


@pytest.fixture(scope="session")
def own_database(database_url: str) -> Iterator[str]:
    """URL of a database that this test process shares with no other, dropped at the end."""
    with fresh_database(database_url) as url:
        yield url


@pytest.fixture
def empty_database(own_database: str) -> str:
    """URL of a database without our schema; new databases for each test would cost a second."""
    admin = create_engine(own_database, poolclass=NullPool)
    with admin.begin() as conn:
        conn.execute(text("DROP SCHEMA IF EXISTS metallm CASCADE"))
    return own_database


@pytest.fixture
def database(empty_database: str) -> str:
    """URL of an empty database with all migrations run."""
    migrate(empty_database)
    return empty_database


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    """Connections to `database` as the services have them."""
    opened = open_engine(database, application_name="test", pool_size=10)
    yield opened
    opened.dispose()


@dataclass(frozen=True)
class Sample:
    """Records of query number i, valid and all alike; keywords change single fields."""

    start: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def decision(self, i: int, **fields: Any) -> Decision:
        """A decision for `mini` among two arms, one second after that of query i - 1."""
        known = {
            "query_offset": i,
            "asked_at": self.start + timedelta(seconds=i),
            "decided_at": self.start + timedelta(seconds=i),
            "task": "trivia",
            "labels": ("A", "B"),
            "encoder": "test",
            "context": np.random.default_rng(i).normal(size=DIMENSIONS).astype("<f4").tobytes(),
            "policy_version": 3,
            "propensity": 0.75,
            "cost_scale_usd": 0.01,
            "candidates": (
                Candidate(arm="mini", probability=0.75, quality=0.6, cost_usd=0.001, utility=0.59),
                Candidate(arm="large", probability=0.25, quality=0.65, cost_usd=0.01, utility=0.55),
            ),
        }
        return records.decision(f"q{i}", **(known | fields))

    def result(
        self, i: int, arm: str | None = "mini", cost_usd: float = 0.001, **fields: Any
    ) -> Result:
        """An answer "A" by one attempt that took a second."""
        attempt = records.attempt(arm or "mini", started_at=self.start, cost_usd=cost_usd)
        known = {
            "text": "A.",
            "prediction": "A",
            "attempts": (attempt,),
            "input_tokens": 10,
            "output_tokens": 2,
            "cost_usd": cost_usd,
            "latency_s": 1.0,
            "finished_at": self.start + timedelta(seconds=i + 1),
        }
        return records.result(f"q{i}", arm, **(known | fields))

    def feedback(self, i: int, label: str | None = "A", **fields: Any) -> Feedback:
        """The label "A", which makes the answer of `result` right."""
        known = {"given_at": self.start + timedelta(hours=1)}
        return records.feedback(f"q{i}", label, **(known | fields))

    def whole(self, i: int) -> Interaction:
        """Decision, result and feedback of query i, joined."""
        parts = (self.decision(i), self.result(i), self.feedback(i))
        interaction = Interaction(f"q{i}")
        for part in parts:
            interaction = interaction.merged(part)
        return interaction


@pytest.fixture
def sample() -> Sample:
    """Makes records."""
    return Sample()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """One vendor and one provider for all scenes of this file."""
    with open_stage() as opened:
        yield opened
