"""A short schedule over real services: all three are killed, replicas join and leave."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tests.chaos.drive import run
from tests.chaos.faults import Fault, Kind, Schedule, draw
from tests.chaos.servers import Servers

QUERIES = 250
SHORT = Schedule(
    seed=1,
    profile="short",
    faults=(
        Fault("kill", "router-0", 0.5),
        Fault("kill", "worker-0", 1.0),
        Fault("kill", "learner-0", 1.5),
        Fault("stop", "router-0", 3.0, 1.0),
        Fault("term", "worker-0", 3.5),
        Fault("kill", "learner-1", 4.0),
    ),
    bad=0.1,
    vendor=(("server_error", 0.02), ("reset", 0.02)),
)


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_killing_services_breaks_no_guarantee(
    kafka_bootstrap: str, database_url: str, tmp_path: Path
) -> None:
    """Every service is killed in the middle of a stream with rubbish while replicas join it."""
    verdict = run(Servers(kafka_bootstrap, database_url), SHORT, QUERIES, tmp_path)
    assert not verdict.violations, "\n\n".join(verdict.stories)
    assert verdict.queries == QUERIES


def test_a_seed_is_a_schedule() -> None:
    """The same seed strikes in the same way; ten seeds know all kinds of faults."""
    schedules = [draw(seed, 10.0) for seed in range(10)]
    assert schedules == [draw(seed, 10.0) for seed in range(10)]
    kinds = {fault.kind for schedule in schedules for fault in schedule.faults}
    assert kinds == set(get_args(Kind))
    for schedule in schedules:
        assert sum(fault.victim == "kafka" for fault in schedule.faults) <= 1
