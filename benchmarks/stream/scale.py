"""One, two, four, two and one replicas of each service, joining and leaving in mid-stream.

    python -m benchmarks.stream.scale --seconds 15

As many queries are asked as the stream takes, with at most 1,000 unanswered, and half of the
answers are judged. After each change the groups settle, then `--seconds` are measured. At the end
everything is audited: one decision and one result a query, and SQL that says what topics say.
Prints one JSON object, or fails with what is wrong.

All replicas share this machine, so `queries_per_s` says what the machine gives. What each replica
of a further machine would add stands in `cpu_ms`, the processor time of all replicas of a service
for one query: where it stays the same, n replicas do n times as much. `shares` are of the records
that each replica has read in between.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from benchmarks.stream.audit import audit
from benchmarks.stream.load import PROVIDER, Load, open_vendor, texts
from benchmarks.stream.stage import Stage, cpu_s, open_stage
from metallm_stream.embedded import Child
from metallm_stream.postgres import load_offsets, open_engine

STEPS = (1, 2, 4, 2, 1)
SERVICES = ("router", "worker", "learner")
PARTITIONS = 8
SETTLED_WITHIN_S = 60.0
Positions = Mapping[int, int]


def main() -> None:
    """Run, audit, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=15, help="Measured at each step.")
    options = parser.parse_args()
    with open_stage(PROVIDER, learns=True, partitions=PARTITIONS) as stage:
        print(json.dumps(run(stage, seconds=options.seconds), indent=2))


def run(stage: Stage, *, seconds: float) -> dict[str, Any]:
    """Go through all steps under load and audit what came of it."""
    asked = texts(200, 200)
    open_vendor(stage, asked, 2, "--latency-mean-s", "0.05")
    replicas = Replicas(stage)
    replicas.become(STEPS[0])
    steps = []
    with Load(stage, asked, rate=float("inf"), unanswered=1_000) as load:
        for count in STEPS:
            began_s = time.monotonic()
            replicas.become(count)
            replicas.settle(count)
            changed_s = time.monotonic()
            steps.append(replicas.measure(load, seconds))
            steps[-1] |= {
                "settled_after_s": round(changed_s - began_s, 1),
                "gap_s": round(load.longest_gap_s(began_s, changed_s), 2),
            }
        load.wait(120)
    return {"steps": steps, "audit": audit(stage, load)}


class Replicas:
    """Slots 0 to n - 1 of each service."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._running: dict[str, list[Child]] = {service: [] for service in SERVICES}
        self._engine = open_engine(stage.database_url, application_name="scale")
        prefix = f"{stage.names.prefix}metallm-"
        self._groups = {
            "router": (f"{prefix}router", stage.names.queries),
            "worker": (f"{prefix}worker-{PROVIDER}", stage.names.calls(PROVIDER)),
            "learner": (f"{prefix}learner", stage.names.decisions),
        }

    def become(self, count: int) -> None:
        """Start or stop replicas until there are so many of each service."""
        for service, running in self._running.items():
            arguments = ("--provider", PROVIDER) if service == "worker" else ()
            while len(running) < count:
                slot = str(len(running))
                running.append(self._stage.start(service, *arguments, slot=slot))
            while len(running) > count:
                running.pop().stop()

    def settle(self, count: int) -> None:
        """Return when every replica has its share of the partitions, and none is without owner."""
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while not all(self._is_settled(service, count) for service in SERVICES):
            owned = {name: self._owned(name) for name in SERVICES}
            assert time.monotonic() < deadline, f"{count} replicas are not settled: {owned}"
            time.sleep(0.2)

    def _is_settled(self, service: str, count: int) -> bool:
        numbers = [len(assigned) for assigned in self._assigned(service).values()]
        owned = sum(map(len, self._owned(service).values()))
        return len(numbers) == count and owned == PARTITIONS and max(numbers) - min(numbers) <= 1

    def measure(self, load: Load, seconds: float) -> dict[str, Any]:
        """Rate, processor time and shares over so many seconds."""
        began_s, cpu = time.monotonic(), self._cpu()
        before = {service: self._positions(service) for service in SERVICES}
        answered = len(load.answered_s)
        time.sleep(seconds)
        answered = len(load.answered_s) - answered
        took_s = time.monotonic() - began_s
        used = {service: 1e3 * (now - cpu[service]) for service, now in self._cpu().items()}
        return {
            "replicas": len(self._running["router"]),
            "queries_per_s": round(answered / took_s, 1),
            "cpu_ms": {name: round(spent / max(1, answered), 2) for name, spent in used.items()},
            "shares": {name: self._shares(name, before[name]) for name in SERVICES},
        }

    def _shares(self, service: str, before: Positions) -> list[float]:
        """Of the records read since, that of each replica; they add up to 1."""
        after, owned = self._positions(service), self._owned(service)
        read = {
            instance: sum(after.get(part, 0) - before.get(part, 0) for part in partitions)
            for instance, partitions in owned.items()
        }
        return [round(read[key] / max(1, sum(read.values())), 3) for key in sorted(read)]

    def _cpu(self) -> dict[str, float]:
        return {name: sum(map(cpu_s, children)) for name, children in self._running.items()}

    def _assigned(self, service: str) -> dict[str, list[TopicPartition]]:
        """Every partition that each replica has."""
        group, _ = self._groups[service]
        described = self._stage.admin.describe_consumer_groups([group])[group].result(15)
        return {
            member.group_instance_id or member.member_id: member.assignment.topic_partitions
            for member in described.members
            if member.assignment is not None
        }

    def _owned(self, service: str) -> dict[str, list[int]]:
        """Partitions of the service's topic by the replica that has them."""
        _, topic = self._groups[service]
        return {
            replica: [part.partition for part in parts if part.topic == topic]
            for replica, parts in self._assigned(service).items()
        }

    def _positions(self, service: str) -> Positions:
        """How far the service has read each partition of its topic."""
        group, topic = self._groups[service]
        if service == "learner":
            with self._engine.connect() as conn:
                stored = load_offsets(conn)
            return {part: at for (name, part), at in stored.items() if name == topic}
        wanted = [TopicPartition(topic, part) for part in range(PARTITIONS)]
        request = ConsumerGroupTopicPartitions(group, wanted)
        told = self._stage.admin.list_consumer_group_offsets([request])[group].result(15)
        return {part.partition: max(0, part.offset) for part in told.topic_partitions}


if __name__ == "__main__":
    main()
