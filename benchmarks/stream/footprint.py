"""What the processes of a stage use, what the servers store, and how long a restart takes."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Consumer, TopicPartition

from benchmarks.stream.stage import Stage, memory_mb, stored_bytes, tree_cpu_s
from metallm_stream.embedded import Child
from metallm_stream.kafka import watermarks

WITHIN_S = 300.0
_TABLES = """
SELECT coalesce(root.relname, t.relname) AS name, sum(pg_total_relation_size(t.oid)) AS bytes
FROM pg_class AS t LEFT JOIN pg_inherits AS i ON i.inhrelid = t.oid
    LEFT JOIN pg_class AS root ON root.oid = i.inhparent
WHERE t.relnamespace = 'metallm'::regnamespace AND t.relkind = 'r'
GROUP BY name ORDER BY bytes DESC LIMIT 6
"""


class Footprint:
    """Processor time, memory and bytes between one checkpoint and the next.

    Parameters
    ----------
    services
        The processes whose memory is told as well.
    """

    def __init__(self, stage: Stage, services: Mapping[str, Child]) -> None:
        self._stage = stage
        self._services = services
        servers = {name: stage.supervisor.children[name] for name in ("kafka", "postgres")}
        self._children = {**services, **servers}
        self.begin()

    def begin(self) -> None:
        """Count from here."""
        self._cpu = {name: tree_cpu_s(child) for name, child in self._children.items()}
        self._at_s = time.monotonic()
        for child in self._services.values():
            Path(f"/proc/{child.pid}/clear_refs").write_text("5")  # the peak begins anew

    def end(self, queries: int, conn: psycopg.Connection) -> dict[str, Any]:
        """What was used since the beginning for so many queries, and what there is now."""
        took_s = time.monotonic() - self._at_s
        cpu = {name: tree_cpu_s(child) - self._cpu[name] for name, child in self._children.items()}
        names = self._stage.names
        state = self._stage.directory / "state"
        topics = names.all(self._stage.providers)
        return {
            "queries": queries,
            "queries_per_s": round(queries / took_s, 1),
            "cpu_ms": {name: round(1e3 * used / queries, 3) for name, used in cpu.items()},
            "rss_mb": {name: round(memory_mb(one), 1) for name, one in self._services.items()},
            "peak_mb": {name: _peak_mb(one) for name, one in self._services.items()},
            "tables_mb": {name: round(int(size) / 1e6, 1) for name, size in conn.execute(_TABLES)},
            "kafka_mb": round(sum(stored_bytes(state, one) for one in topics) / 1e6, 1),
            "policy_topic_mb": round(stored_bytes(state, names.policy) / 1e6, 1),
        }


def unread(stage: Stage, reader: Consumer, conn: psycopg.Connection) -> int:
    """Records of the joined topics that the learner has not learned from."""
    learned = {
        (topic, part): at
        for topic, part, at in conn.execute(
            "SELECT topic, partition, next_offset FROM metallm.offsets"
        )
    }
    left = 0
    for topic in stage.names.joined:
        for part in range(stage.partitions):
            high = watermarks(reader, TopicPartition(topic, part))[1]
            left += high - learned.get((topic, part), 0)
    return left


def wait(
    what: str, condition: Callable[[], bool], within_s: float = WITHIN_S, every_s: float = 0.02
) -> None:
    """Return when the condition holds; raises `SystemExit` that says what did not come about."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {within_s:.0f} s: {what}")
        time.sleep(every_s)


def restart(child: Child, committed: Callable[[], int]) -> dict[str, float]:
    """Kill a service that has work; seconds from its next process' start to its first commit.

    `committed` is a number that grows with each commit.
    """
    assert child.pid is not None
    old = child.pid
    os.kill(old, signal.SIGKILL)
    killed_s = time.monotonic()
    wait(f"{child.name} is started again", lambda: child.pid not in (None, old))
    started_s, before = time.monotonic(), committed()
    wait(f"{child.name} commits again", lambda: committed() > before)
    return {
        "start_to_commit_s": round(time.monotonic() - started_s, 2),
        "kill_to_commit_s": round(time.monotonic() - killed_s, 2),
        "cpu_s": round(tree_cpu_s(child), 2),
        "rss_mb": round(memory_mb(child), 1),
    }


def grown(values: Sequence[float], some: int = 3) -> float:
    """The last values over the first ones: medians of `some` at each end, if there are so many."""
    some = max(1, min(some, len(values) // 2))
    return round(statistics.median(values[-some:]) / statistics.median(values[:some]), 3)


def _peak_mb(child: Child) -> float:
    lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return round(int(peak.split()[1]) * 1024 / 1e6, 1)
