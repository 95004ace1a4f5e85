"""Each of three brokers is killed in turn under load: nothing is lost, nothing doubled.

    python -m benchmarks.stream.brokers --rate 40 --rounds 1

Kafka, PostgreSQL, router, worker, learner and vendor are the real ones. After each SIGKILL the
next waits until the broker is back and has every record again. Prints one JSON object, or fails
with what is wrong. `gap_s` is the longest time without any result, `slowest_s` the longest that a
query written around the kill waited, `back_s` the time until the broker answered again and
`whole_s` until every partition had three copies again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException

from benchmarks.stream.audit import audit
from benchmarks.stream.load import PROVIDER, Load, open_vendor, texts
from benchmarks.stream.stage import Stage, memory_mb, open_stage
from metallm_stream.embedded import Child

BROKERS = ("kafka", "kafka-2", "kafka-3")
QUIET_S = 6.0  # before each kill, and after the last one
WHOLE_WITHIN_S = 120.0


def main() -> None:
    """Run, audit, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=40, help="Queries a second.")
    parser.add_argument("--rounds", type=int, default=1, help="How often each is killed.")
    options = parser.parse_args()
    with open_stage(PROVIDER, learns=True, brokers=3) as stage:
        print(json.dumps(run(stage, rate=options.rate, rounds=options.rounds), indent=2))


def run(stage: Stage, *, rate: float, rounds: int) -> dict[str, Any]:
    """Kill each broker `rounds` times under `rate` queries a second and audit what came of it."""
    asked = texts(200, 200)
    open_vendor(stage, asked, 2, "--latency-mean-s", "0.1")
    services = [
        stage.start("router"),
        stage.start("worker", "--provider", PROVIDER),
        stage.start("learner"),
    ]
    brokers = [stage.supervisor.children[name] for name in BROKERS]
    with Load(stage, asked, rate=rate) as load:
        time.sleep(QUIET_S)
        kills = [_kill(stage, broker) for broker in brokers * rounds]
        load.wait(120)
    before_s = load.latencies_s(0, kills[0].began_s - 1)
    return {
        "latency_before_s": round(statistics.median(before_s), 3),
        "kills": [kill.seen(load) for kill in kills],
        "services_restarted": sum(len(child.exit_codes) for child in services),
        "brokers_mb": [round(memory_mb(child)) for child in brokers],
        "audit": audit(stage, load),
    }


@dataclass(frozen=True)
class Kill:
    """One broker's end and return; moments are monotonic."""

    broker: str
    led_partitions: int
    began_s: float
    back_s: float
    whole_s: float

    def seen(self, load: Load) -> dict[str, Any]:
        """What users saw of it, once all queries are answered."""
        until_s = self.whole_s + QUIET_S / 2
        return {
            "broker": self.broker,
            "led_partitions": self.led_partitions,
            "gap_s": round(load.longest_gap_s(self.began_s, until_s), 2),
            "slowest_s": round(max(load.latencies_s(self.began_s - 1, until_s)), 2),
            "back_s": round(self.back_s - self.began_s, 2),
            "whole_s": round(self.whole_s - self.began_s, 2),
        }


def _kill(stage: Stage, broker: Child) -> Kill:
    """SIGKILL one broker, wait until it has caught up, and some quiet seconds more."""
    assert broker.pid is not None
    leads, ended = _leads(stage, broker), len(broker.exit_codes)
    began_s = time.monotonic()
    os.kill(broker.pid, signal.SIGKILL)
    _wait("the supervisor sees the end of a broker", lambda: len(broker.exit_codes) > ended)
    broker.wait_ready(WHOLE_WITHIN_S)
    back_s = time.monotonic()
    _wait("every partition has three copies", lambda: _is_whole(stage))
    kill = Kill(broker.name, leads, began_s, back_s, time.monotonic())
    time.sleep(QUIET_S)
    return kill


def _leads(stage: Stage, broker: Child) -> int:
    """How many partitions of all topics it leads."""
    node = BROKERS.index(broker.name) + 1
    topics = stage.admin.list_topics(timeout=15).topics.values()
    return sum(part.leader == node for topic in topics for part in topic.partitions.values())


def _is_whole(stage: Stage) -> bool:
    try:
        topics = stage.admin.list_topics(timeout=5).topics.values()
    except KafkaException:
        return False
    return all(len(part.isrs) == 3 for topic in topics for part in topic.partitions.values())


def _wait(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WHOLE_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WHOLE_WITHIN_S:g} s: {what}"
        time.sleep(0.05)


if __name__ == "__main__":
    main()
