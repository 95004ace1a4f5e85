"""What one worker on one core does, beside a bare asyncio loop on the same SDK without Kafka.

    python -m benchmarks.stream.worker --calls 30000

A local vendor answers with log-normal latency (mean 0.8 s, 99th percentile 8 s, at most 30 s).
Five runs:

- bare: the loop, on the worker's core;
- full: the same calls through Kafka and a worker, 500 in flight; memory is read along the way;
- bare_paced: the loop, asked evenly at a share of that rate: what HTTP and the machine add to the
  vendor's time by themselves;
- paced: calls written evenly at the same rate. What is added is the time from a call's
  creation until its result can be read, less the vendor's own time;
- blocked: the same with 1 % of calls that take 30 s; what is added to the others.

The worker commits every 10 ms instead of 20: an idle machine has the time for twice the commits.

Prints one JSON object. Rates are those between the first and the last tenth of the results. The
worker has one core; vendor, Kafka and this reader have the other. `core_share` near 1 says that the
worker was the bound, `vendor_core_share` that the vendor was; if neither is, others were using the
machine, and `cpu_ms_per_call` is the figure to compare.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from confluent_kafka import Message

from benchmarks.stream.bare import percentiles, sustained
from benchmarks.stream.stage import KEY, REPOSITORY, Stage, cpu_s, memory_mb, open_stage
from metallm_stream.embedded import Child
from metallm_stream.events import Call, Generation, Model, Query, Result
from metallm_stream.kafka import Record
from metallm_stream.kafka.write import begin_write

ARM = Model(arm="m", provider="recorded", model="m")
MEAN_S, SIGMA = 0.8, 1.43  # the 99th percentile is 8 s
SLOW_S = 30.0
SLOW = tuple(f"Slow question {number}" for number in range(1_000))
COMMIT_INTERVAL_S = 0.01
WORKER_CORE, OTHER_CORE = "0", "1"


def main() -> None:
    """Run all five and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=6_000)
    parser.add_argument("--concurrency", type=int, default=500)
    parser.add_argument("--paced-s", type=float, default=20, help="How long the paced runs are.")
    parser.add_argument("--paced-share", type=float, default=0.4, help="Of the full rate.")
    options = parser.parse_args()
    own_s = _latencies(options.calls)
    with open_stage("recorded") as stage:
        vendor = stage.vendor("recorded", _outcomes(own_s), core=OTHER_CORE)
        figures: dict[str, Any] = {"calls": options.calls, "concurrency": options.concurrency}
        texts = [text for text in own_s if text not in SLOW]
        figures["bare"] = bare(stage, {text: own_s[text] for text in texts}, options.concurrency)
        worker = stage.start(
            "worker",
            *("--provider", "recorded"),
            core=WORKER_CORE,
            WORKER__CONCURRENCY=str(options.concurrency),
            WORKER__COMMIT_INTERVAL_S=str(COMMIT_INTERVAL_S),
        )
        run = Run(stage, worker, vendor, own_s)
        figures["full"] = run.ask("full", texts, rate=None)
        figures["ratio"] = figures["full"]["calls_per_s"] / figures["bare"]["calls_per_s"]
        rate = options.paced_share * figures["full"]["calls_per_s"]
        paced = texts[: int(options.paced_s * rate)]
        figures["bare_paced"] = bare(
            stage, {text: own_s[text] for text in paced}, options.concurrency, rate
        )
        run.ask("warm", paced, rate=rate)  # a broker compiles its way of small transactions
        figures["paced"] = run.ask("paced", paced, rate=rate)
        mixed = [
            SLOW[number // 100] if number % 100 == 0 else text for number, text in enumerate(paced)
        ]
        figures["blocked"] = run.ask("blocked", mixed, rate=rate)
    print(json.dumps(figures, indent=2))


def _latencies(count: int) -> dict[str, float]:
    """How long the vendor takes by itself for each text; for those of `SLOW`, 30 s."""
    rng = np.random.default_rng(1)
    drawn = rng.lognormal(np.log(MEAN_S) - SIGMA**2 / 2, SIGMA, count)
    own_s = {f"Question {n}: is it so?": min(SLOW_S, float(s)) for n, s in enumerate(drawn)}
    return own_s | dict.fromkeys(SLOW, SLOW_S)


def _outcomes(own_s: dict[str, float]) -> dict[str, dict[str, dict[str, Any]]]:
    known = {"answer": "yes", "cost": 0.0001}
    return {text: {"m": known | {"latency_s": seconds}} for text, seconds in own_s.items()}


def bare(
    stage: Stage, own_s: Mapping[str, float], concurrency: int, rate: float | None = None
) -> dict[str, Any]:
    """The bare loop's figures, from a process of its own on the worker's core."""
    path = stage.directory / "texts.json"
    path.write_text(json.dumps(own_s))
    argv = ["taskset", "-c", WORKER_CORE, sys.executable, "-m", "benchmarks.stream.bare"]
    argv += [stage.urls["recorded"], str(path), "--concurrency", str(concurrency)]
    argv += [] if rate is None else ["--rate", str(rate)]
    environment = os.environ | {"VENDOR_KEY": KEY, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(  # noqa: S603 - our own words
        argv, env=environment, check=True, capture_output=True, text=True
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


class Run:
    """Calls through one worker, read from the outside."""

    def __init__(self, stage: Stage, worker: Child, vendor: Child, own_s: dict[str, float]) -> None:
        self._stage = stage
        self._own_s = own_s
        self._worker = worker
        self._vendor = vendor
        self._read = 0

    def ask(self, name: str, texts: Sequence[str], *, rate: float | None) -> dict[str, Any]:
        """Ask every text once, all at once or `rate` a second; what came of it."""
        calls = [_call(name, number, text) for number, text in enumerate(texts)]
        arrived: dict[str, tuple[float, bytes]] = {}
        doubled: Counter[str] = Counter()
        memory = []

        def seen(message: Message) -> None:
            key = (message.key() or b"").decode()
            if key.startswith(f"{name}-"):
                doubled[key] += 1
                arrived[key] = time.time(), message.value() or b""
                if len(arrived) % max(1, len(texts) // 10) == 0:
                    memory.append(round(memory_mb(self._worker), 1))

        sent: dict[str, float] = {}
        with self._stage.reader(self._stage.names.results) as consumer:
            self._stage.read(consumer, self._read, lambda _: None, 60)
            began_s, cpu = time.monotonic(), (cpu_s(self._worker), cpu_s(self._vendor))
            for number, call in enumerate(calls):
                due_s = began_s + (number / rate if rate else 0.0)
                while (left_s := due_s - time.monotonic()) > 0:
                    one = consumer.poll(left_s)
                    if one is not None and one.error() is None:
                        seen(one)
                sent[call.call_id] = time.time()
                topic = self._stage.names.calls("recorded")
                begin_write(self._stage.producer, Record.of(topic, call.call_id, call))
            self._stage.producer.flush(30)
            self._stage.read(consumer, len(calls) - len(arrived), seen, 600)
        took_s = time.monotonic() - began_s
        self._read += len(calls)
        results = {key: Result.parse(value) for key, (_, value) in arrived.items()}
        assert set(doubled.values()) == {1}
        assert all(result.arm == "m" for result in results.values())
        worker_s, vendor_s = cpu_s(self._worker) - cpu[0], cpu_s(self._vendor) - cpu[1]
        figures = {
            "calls": len(calls),
            "calls_per_s": sustained([at for at, _ in arrived.values()]),
            "cpu_ms_per_call": 1e3 * worker_s / len(calls),
            "core_share": worker_s / took_s,
            "vendor_core_share": vendor_s / took_s,
            "memory_mb": memory,
        }
        if rate is not None:
            added_ms = [
                1e3 * (at - sent[key] - self._own_s[text])
                for key, (at, _) in arrived.items()
                if (text := texts[int(key.rpartition("-")[2])]) not in SLOW
            ]
            figures["added_ms"] = percentiles(added_ms)
        return figures


def _call(name: str, number: int, text: str) -> Call:
    key = f"{name}-{number}"
    query = Query(query_id=key, text=text, generation=Generation(temperature=0))
    return Call(call_id=key, query=query, ranking=(ARM,), decided_at=datetime.now(UTC))


if __name__ == "__main__":
    main()
