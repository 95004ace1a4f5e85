"""How much machine a stream needs: a formula, whose constants were measured.

Invariant: every constant comes from `python -m benchmarks.stream.sizing`, which also says how far
its predictions are from runs that it was not fitted to. Nothing here is read while a service runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ROOM = 0.6  # of its core that a replica uses at most, so that it can catch up after a pause
DAY_S = 86_400


@dataclass(frozen=True)
class Workload:
    """What is asked of the stream.

    Attributes
    ----------
    queries_per_s
        On average over the busiest minutes.
    label_share
        Labels a query.
    arms, dimensions
        Models in the catalogue, and dimensions of the encoder.
    characters
        Of a prompt.
    latency_s
        Mean time that a vendor takes.
    concurrency
        Calls in flight in one worker.
    copies
        Of each record in Kafka.
    """

    queries_per_s: float
    label_share: float = 0.5
    arms: int = 4
    dimensions: int = 128
    characters: int = 500
    latency_s: float = 2.0
    concurrency: int = 64
    copies: int = 3


@dataclass(frozen=True)
class Cost:
    """Processor time of one service, in milliseconds.

    Attributes
    ----------
    idle_ms
        Each second, whatever comes: polls, transactions, refreshes.
    query_ms, arm_ms, label_ms
        For each query, each query and arm, each label.
    arm_refresh_ns
        Each second for each arm and cubed dimension: factorisations.
    """

    idle_ms: float
    query_ms: float
    arm_ms: float = 0.0
    label_ms: float = 0.0
    arm_refresh_ns: float = 0.0

    def cores(self, load: Workload) -> float:
        """Cores that are busy under a workload."""
        query_ms = self.query_ms + self.arm_ms * load.arms + self.label_ms * load.label_share
        refresh_ms = self.arm_refresh_ns * load.arms * load.dimensions**3 / 1e6
        return (self.idle_ms + refresh_ms + query_ms * load.queries_per_s) / 1e3


@dataclass(frozen=True)
class Bytes:
    """Size of what one query leaves behind."""

    query: float
    character: float
    arm: float
    dimension: float
    label: float

    def of(self, load: Workload) -> float:
        """Bytes a query."""
        return (
            self.query
            + self.character * load.characters
            + self.arm * load.arms
            + self.dimension * load.dimensions
            + self.label * load.label_share
        )


@dataclass(frozen=True)
class Need:
    """What one service needs."""

    cores: float
    replicas: int
    memory_mb: int


@dataclass(frozen=True)
class Sizing:
    """What a workload needs in all.

    Attributes
    ----------
    services
        Router, worker and learner.
    kafka_cores, postgres_cores
        Of all brokers together, and of the database.
    partitions
        Of each topic: a multiple of the replicas, so that they share evenly, with room to grow.
    kafka_in_mb_per_s, kafka_out_mb_per_s
        Records as they are stored, with all copies, and as they are read once by their readers.
    kafka_gb_a_day, postgres_gb_a_day
        What is stored in a day.
    """

    services: dict[str, Need]
    kafka_cores: float
    postgres_cores: float
    partitions: int
    kafka_in_mb_per_s: float
    kafka_out_mb_per_s: float
    kafka_gb_a_day: float
    postgres_gb_a_day: float


# benchmarks/stream/sizing.py: begin
COSTS = {
    "router": Cost(idle_ms=9.12, query_ms=0, arm_ms=0.307),
    "worker": Cost(idle_ms=15, query_ms=2.91, arm_ms=0.0929),
    "learner": Cost(
        idle_ms=26.6, query_ms=0.175, arm_ms=0.103, label_ms=1.11, arm_refresh_ns=0.228
    ),
    "kafka": Cost(idle_ms=117, query_ms=0, arm_ms=0.823, label_ms=4.91),
    "postgres": Cost(idle_ms=8.35, query_ms=0.447, arm_ms=0.0387),
}
KAFKA = Bytes(query=16.2, character=0.252, arm=205, dimension=7.05, label=228)
POSTGRES = Bytes(query=3090, character=0, arm=63.5, dimension=2.19, label=671)
MEMORY_MB = {"router": 230, "worker": 145, "learner": 250}
# benchmarks/stream/sizing.py: end


def size(load: Workload) -> Sizing:
    """What a workload needs.

    >>> size(Workload(queries_per_s=10)).services["worker"].replicas
    1
    """
    in_flight = load.queries_per_s * load.latency_s / (load.concurrency * ROOM)
    services = {
        name: Need(
            cores := COSTS[name].cores(load),
            math.ceil(max(cores / ROOM, in_flight if name == "worker" else 0.0, 1.0)),
            MEMORY_MB[name],
        )
        for name in MEMORY_MB
    }
    most = max(need.replicas for need in services.values())
    stored = KAFKA.of(load) * load.queries_per_s
    kept = POSTGRES.of(load) * load.queries_per_s
    return Sizing(
        services=services,
        kafka_cores=COSTS["kafka"].cores(load) * load.copies,
        postgres_cores=COSTS["postgres"].cores(load),
        partitions=max(4, 2 * most),
        kafka_in_mb_per_s=stored * load.copies / 1e6,
        kafka_out_mb_per_s=stored * 2 / 1e6,
        kafka_gb_a_day=stored * load.copies * DAY_S / 1e9,
        postgres_gb_a_day=kept * DAY_S / 1e9,
    )
