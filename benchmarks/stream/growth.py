"""What grows with the number of queries: memory, processor time a query, tables and topics.

    python -m benchmarks.stream.growth --queries 1000000 --rate 800 --within-s 7200

A whole stream (router, worker, learner, Kafka, PostgreSQL, and a vendor on this machine) is asked
`--rate` queries a second at most, and fewer where the stream takes no more; every answer gets a
label. After each twentieth of the queries it is told what they took. `grown` compares the last
checkpoints with the first ones after the warm-up, and `flat` says whether memory grew by no more
than 10 % and processor time by no more than 20 %. At the end learner and router are killed with
work before them: the seconds from a process' start to its first commit. Prints one JSON object,
and each checkpoint as a line on standard error as soon as it is reached.

Topics keep ten minutes, so that a million queries need about 8 GB of disk, in $TMPDIR and for
PostgreSQL, until it ends; where less than twice what is needed is free, nothing begins.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

import psycopg
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from benchmarks.stream.footprint import Footprint, grown, restart, unread, wait
from benchmarks.stream.load import PROVIDER, Load, open_vendor, texts
from benchmarks.stream.stage import Stage, open_stage
from benchmarks.stream.throughput import libpq
from metallm_stream.kafka import watermarks
from metallm_stream.settings import Settings

BYTES_A_QUERY = 8_000
WARM_UP_SHARE = 0.1
UNANSWERED = 2_000
BEHIND = 20_000  # records that the learner may be behind before no more is asked
RESTART_RATE = 50.0
KEPT_MS, SEGMENT_BYTES = 600_000, 16 * 1024 * 1024


def main() -> None:
    """Ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--queries", type=int, default=50_000)
    parser.add_argument("--rate", type=float, default=800, help="Queries a second, at most.")
    parser.add_argument("--arms", type=int, default=12)
    parser.add_argument("--checkpoints", type=int, default=20)
    parser.add_argument("--within-s", type=float, default=7_200, help="Ask no longer than this.")
    options = parser.parse_args()
    with open_stage(PROVIDER, learns=True) as stage:
        free, needed = shutil.disk_usage(stage.directory).free, BYTES_A_QUERY * options.queries
        if free < 2 * needed:
            raise SystemExit(
                f"{free / 1e9:.0f} GB are free in {stage.directory.parent}, about "
                f"{needed / 1e9:.0f} are needed: set TMPDIR, or ask fewer --queries"
            )
        with psycopg.connect(libpq(stage.database_url), autocommit=True) as conn:
            print(json.dumps(run(stage, conn, options), indent=2))


def run(stage: Stage, conn: psycopg.Connection, options: argparse.Namespace) -> dict[str, Any]:
    """Checkpoints, what grew between them, and restarts."""
    stage.encoder = Settings().encoder
    _keep_little(stage)
    asked = texts(2_000, 300)
    open_vendor(stage, asked, options.arms, "--latency-mean-s", "0.1")
    services = {
        "router": stage.start("router"),
        "worker": stage.start("worker", "--provider", PROVIDER, WORKER__CONCURRENCY="256"),
        "learner": stage.start("learner"),
    }
    with Load(stage, asked, rate=options.rate, label_share=1.0, unanswered=UNANSWERED) as load:
        steady = Steady(stage, conn, load, Footprint(stage, services))
        checkpoints = steady.run(options)
        if not checkpoints:
            raise SystemExit(
                f"no checkpoint within {options.within_s:.0f} s: allow more --within-s"
            )
        load.rate = RESTART_RATE
        restarts = {
            "learner": restart(services["learner"], steady.learned),
            "router": restart(services["router"], steady.decided),
        }
        load.wait(120)
        wait("the learner has read all", lambda: steady.behind() == 0, every_s=0.2)
    row = conn.execute("SELECT count(*), count(quality) FROM metallm.interactions").fetchone()
    return {
        "asked": len(load.asked_s),
        "stored, judged": row,
        "restarted": {name: len(one.exit_codes) for name, one in services.items()},
        "checkpoints": checkpoints,
        **verdicts(checkpoints),
        "restarts": restarts,
    }


class Steady:
    """A load that lets the learner keep up, and what is seen of it."""

    def __init__(
        self, stage: Stage, conn: psycopg.Connection, load: Load, footprint: Footprint
    ) -> None:
        self._stage = stage
        self._conn = conn
        self._load = load
        self._footprint = footprint
        self._reader = stage.kafka.reader("growth")

    def run(self, options: argparse.Namespace) -> list[dict[str, Any]]:
        """Go on until all is asked or time is over; what each part of it took."""
        deadline = time.monotonic() + options.within_s
        checkpoints: list[dict[str, Any]] = []
        done = 0
        for number in range(1, options.checkpoints + 1):
            self._footprint.begin()
            behind = self._until(number * options.queries // options.checkpoints, deadline, options)
            if time.monotonic() > deadline:
                break
            answered = len(self._load.answered_s)
            figures = self._footprint.end(answered - done, self._conn)
            done = answered
            checkpoints.append({"answered": done, "most_behind": behind} | figures)
            print(json.dumps(checkpoints[-1]), file=sys.stderr, flush=True)
        return checkpoints

    def _until(self, answered: int, deadline: float, options: argparse.Namespace) -> int:
        """Wait for so many answers; how far the learner was behind at most."""
        most = 0
        while len(self._load.answered_s) < answered and time.monotonic() < deadline:
            time.sleep(1.0)
            behind = self.behind()
            self._load.rate = options.rate if behind < BEHIND else 0.0
            most = max(most, behind)
        return most

    def behind(self) -> int:
        """Records that the learner has not read."""
        return unread(self._stage, self._reader, self._conn)

    def learned(self) -> int:
        """Grows with each commit of the learner."""
        row = self._conn.execute("SELECT sum(next_offset) FROM metallm.offsets").fetchone()
        return 0 if row is None else int(row[0])

    def decided(self) -> int:
        """Grows with each commit of the router."""
        where = (
            TopicPartition(self._stage.names.decisions, part)
            for part in range(self._stage.partitions)
        )
        return sum(watermarks(self._reader, one)[1] for one in where)


def verdicts(checkpoints: list[dict[str, Any]]) -> dict[str, Any]:
    """What has grown since the warm-up, and whether it is little enough to be called flat."""
    warm = checkpoints[int(WARM_UP_SHARE * len(checkpoints)) :]
    growth = {
        kind: {name: grown([one[kind][name] for one in warm]) for name in warm[0][kind]}
        for kind in ("rss_mb", "peak_mb", "cpu_ms")
    }
    return {
        "grown": growth,
        "flat": {
            "rss_mb": _within(growth["rss_mb"], 0.1),
            "cpu_ms": _within(growth["cpu_ms"], 0.2),
        },
    }


def _within(ratios: Mapping[str, float], share: float) -> dict[str, bool]:
    return {name: ratio <= 1 + share for name, ratio in ratios.items()}


def _keep_little(stage: Stage) -> None:
    """Let topics that grow with the queries keep ten minutes, in small segments."""
    names = stage.names
    kept = {"retention.ms": str(KEPT_MS), "segment.bytes": str(SEGMENT_BYTES)}
    topics = set(names.all(stage.providers)) - set(names.compacted)
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in kept.items()
            ],
        )
        for topic in topics
    ]
    for altered in stage.admin.incremental_alter_configs(resources).values():
        altered.result(15)


if __name__ == "__main__":
    main()
