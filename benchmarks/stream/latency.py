"""What router and worker add to a vendor's answer, beside two bare exactly-once hops.

    python -m benchmarks.stream.latency --seconds 60

First it is measured how many queries a second the stream takes. Then queries are written evenly at
half of that rate, in turns to the stream and to two bare loops (consume, write, commit) of which
the second reads what the first has written. What is told is the time from writing a query until a
read_committed reader has its result: of the stream without the vendor's time, as the worker has
noted it with each attempt (`added_ms`), or as the vendor takes by itself (`beyond_vendor_ms`, which
has the HTTP calls in it). The router chooses by a policy that was learned before. Prints one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
from confluent_kafka import Producer, TopicPartition

from benchmarks.stream.bare import percentiles, sustained
from benchmarks.stream.footprint import unread, wait
from benchmarks.stream.load import PROVIDER, Load, open_vendor, texts
from benchmarks.stream.stage import REPOSITORY, Stage, open_stage
from benchmarks.stream.throughput import LABELS, interactions, libpq, put
from metallm_stream.events import Model, Query, Result
from metallm_stream.kafka import watermarks
from metallm_stream.settings import Settings

VENDOR_S = 0.05
TAUGHT = 1_000
UNANSWERED = 500
TURNS = 3
WARM_UP = 100  # queries before each measurement
WITHIN_S = 120.0


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="Of paced load for each.")
    parser.add_argument("--capacity-s", type=float, default=20, help="To see what it takes.")
    parser.add_argument("--rate", type=float, help="Queries a second, instead of half of that.")
    parser.add_argument("--arms", type=int, default=12)
    options = parser.parse_args()
    with open_stage(PROVIDER, learns=True) as stage:
        print(json.dumps(run(stage, options), indent=2))


def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Capacity, and both latencies at half of it."""
    stage.encoder = Settings().encoder
    asked = texts(500, 300)
    _open_services(stage, asked, options.arms)
    capacity = _capacity(stage, asked, options.capacity_s)
    rate = options.rate or capacity / 2
    stream = Path(stage, lambda key: _query(key, asked), _less_vendor)
    bare = Path(_open_bare(stage), lambda _: b"x" * 400, lambda _: (0.0, 0.0))
    for path in (stream, bare):
        path.ask(WARM_UP, rate)
    for _ in range(TURNS):
        for path in (stream, bare):
            path.ask(int(options.seconds / TURNS * rate), rate, keep=True)
    added, beyond, hops = stream.ms(0), stream.ms(1), bare.ms(0)
    return {
        "capacity_per_s": round(capacity, 1),
        "rate": round(rate, 1),
        "queries": len(added),
        "added_ms": percentiles(added),
        "beyond_vendor_ms": percentiles(beyond),
        "two_bare_hops_ms": percentiles(hops),
        "p50_by_bare_p50": round(float(np.median(added) / np.median(hops)), 2),
        "p99_by_p50": round(float(np.percentile(added, 99) / np.median(added)), 2),
        "bare_p99_by_p50": round(float(np.percentile(hops, 99) / np.median(hops)), 2),
    }


@dataclass
class Path:
    """A way from `queries` to `results`, and how long queries took on it.

    `value` makes a query's record, and `own_s` says of a result how much of the time is to be left
    out: two sizes of it.
    """

    stage: Stage
    value: Callable[[str], bytes]
    own_s: Callable[[bytes], tuple[float, float]]
    took_s: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # A query is on its way at once, whatever the producer of a user may wait for.
        self._producer = Producer({"bootstrap.servers": self.stage.bootstrap, "linger.ms": 0})
        self._reader = self.stage.kafka.reader("latency")

    def ask(self, count: int, rate: float, *, keep: bool = False) -> None:
        """Write so many queries evenly and wait for their results."""
        sent: dict[str, float] = {}
        arrived: dict[str, tuple[float, bytes]] = {}
        self._go_to_end()
        began_s = time.monotonic()
        while len(arrived) < count:
            now_s = time.monotonic()
            if now_s > began_s + count / rate + WITHIN_S:
                raise SystemExit(f"only {len(arrived)} of {count} results came")
            due_s = began_s + len(sent) / rate
            if len(sent) < count and due_s <= now_s:
                self._send(sent)
                continue
            message = self._reader.poll(due_s - now_s if len(sent) < count else 0.1)
            if message is not None and message.error() is None:
                key = (message.key() or b"").decode()
                if key in sent:
                    arrived[key] = time.time(), message.value() or b""
        self._producer.flush(WITHIN_S)
        if keep:
            self.took_s += self._taken(sent, arrived)

    def _go_to_end(self) -> None:
        topic, reader = self.stage.names.results, self._reader
        partitions = [TopicPartition(topic, number) for number in range(self.stage.partitions)]
        for where in partitions:
            where.offset = watermarks(reader, where)[1]
        reader.assign(partitions)

    def _send(self, sent: dict[str, float]) -> None:
        key = str(uuid.uuid4())
        value = self.value(key)
        sent[key] = time.time()  # as the record's own time, and finer
        self._producer.produce(self.stage.names.queries, key=key, value=value)
        self._producer.poll(0)

    def _taken(
        self, sent: dict[str, float], arrived: dict[str, tuple[float, bytes]]
    ) -> Iterator[tuple[float, float]]:
        for key, (at, value) in arrived.items():
            first, second = self.own_s(value)
            yield at - sent[key] - first, at - sent[key] - second

    def ms(self, which: int) -> list[float]:
        """Milliseconds that each query took, without the one or the other time of the vendor."""
        return [1e3 * taken[which] for taken in self.took_s]


def _query(key: str, asked: Sequence[str]) -> bytes:
    text = asked[hash(key) % len(asked)]
    return Query(query_id=key, text=text, labels=LABELS).encode()


def _less_vendor(value: bytes) -> tuple[float, float]:
    result = Result.parse(value)
    assert result.failure is None, result.failure
    return sum(one.latency_s for one in result.attempts), VENDOR_S * len(result.attempts)


def _open_services(stage: Stage, asked: Sequence[str], arms: int) -> None:
    """A vendor, a policy on its topic, a router and a worker."""
    open_vendor(stage, asked, arms, "--latency-mean-s", str(VENDOR_S), "--latency-sigma", "0")
    learner = stage.start("learner")
    models = [Model(arm=f"arm{n}", provider=PROVIDER, model=f"arm{n}") for n in range(arms)]
    put(stage, interactions(stage, [f"l-{number}" for number in range(TAUGHT)], models))
    reader = stage.kafka.reader("latency")
    with psycopg.connect(libpq(stage.database_url), autocommit=True) as conn:
        wait("the learner has read all", lambda: unread(stage, reader, conn) == 0, every_s=0.2)
    learner.stop()  # its last policy is in force
    stage.start("router")
    stage.start("worker", "--provider", PROVIDER, WORKER__CONCURRENCY="256")


def _capacity(stage: Stage, asked: Sequence[str], seconds: float) -> float:
    """Queries a second when there are always some that wait."""
    with Load(stage, asked, rate=float("inf"), label_share=0.0, unanswered=UNANSWERED) as load:
        time.sleep(seconds)
        load.wait(WITHIN_S)
    return sustained([times[0] for times in load.answered_s.values()])


def _open_bare(stage: Stage) -> Stage:
    """Topics of their own, and two loops between them."""
    bare = Stage(stage.bootstrap, stage.directory, stage.supervisor, (PROVIDER,))
    names = bare.names
    hops = {
        "first": [names.queries, names.decisions, names.calls(PROVIDER), "--bytes", "1500", "700"],
        "second": [names.calls(PROVIDER), names.results, "--bytes", "700"],
    }
    for name, topics in hops.items():
        argv = [sys.executable, "-m", "benchmarks.stream.bare_kafka", stage.bootstrap, *topics]
        argv += ["--records", str(10**9), "--batch", "500", "--name", f"bare-{name}", "--eager"]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        stage.supervisor.add(name, argv, environment, stage.directory / f"{name}.log")
    return bare


if __name__ == "__main__":
    main()
