"""A vendor goes down in the middle of a stream, and two others are up.

    python -m benchmarks.stream.outage --seconds 180 --down 60

Every query prefers the vendor that goes down, so nothing is left to luck: router, workers and
vendors are the real ones. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from confluent_kafka import Message

from benchmarks.stream.stage import Stage, open_stage
from metallm_stream.embedded.recorded_llm import (
    ChatRequest,
    Fault,
    Latency,
    Outcome,
    RecordedLLM,
    Recording,
)
from metallm_stream.events import Decision, Model, Query, Result
from metallm_stream.kafka import Record
from metallm_stream.kafka.write import begin_write

COST_USD = {"best": 0.001, "second": 0.002, "third": 0.004}
RIGHT = {"best": 0.9, "second": 0.85, "third": 0.8}  # share of texts that each answers well
PHASES = ("before", "during", "after")


@dataclass
class Vendors:
    """Three vendors in a thread; `best` fails by `fault` while `is_down`."""

    fault: Fault
    texts: Sequence[str]
    is_down: bool = False
    urls: dict[str, str] = field(default_factory=dict)

    def strike(self, request: ChatRequest) -> Fault | None:
        """What befalls a request."""
        return self.fault if self.is_down and request.model == "best" else None

    async def serve(self, listening: threading.Event, over: threading.Event) -> None:
        """Answer until `over`."""
        async with AsyncExitStack() as opened:
            for name, share in RIGHT.items():
                known = {
                    text: {name: self._outcome(name, number, share)}
                    for number, text in enumerate(self.texts)
                }
                server = RecordedLLM(
                    Recording(known),
                    faults=self.strike,
                    latency=Latency(mean_s=0.1, sigma=0.4),
                )
                await opened.enter_async_context(server)
                self.urls[name] = server.base_url
            listening.set()
            await asyncio.to_thread(over.wait)

    @staticmethod
    def _outcome(name: str, number: int, share: float) -> Outcome:
        is_right = (number * 0.618034 + ord(name[0]) * 0.37) % 1 < share
        return Outcome(answer="right" if is_right else "wrong", cost_usd=COST_USD[name])


@contextmanager
def open_vendors(fault: Fault, texts: Sequence[str]) -> Iterator[Vendors]:
    """Three vendors that listen."""
    vendors, listening, over = Vendors(fault, texts), threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(vendors.serve(listening, over)))
    thread.start()
    listening.wait()
    try:
        yield vendors
    finally:
        over.set()
        thread.join()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--down", type=float, default=60)
    parser.add_argument("--rate", type=float, default=20, help="Queries a second.")
    parser.add_argument("--fault", choices=list(Fault), default=Fault.HANG)
    options = parser.parse_args()
    with open_stage(*COST_USD) as stage:
        figures = run(
            stage,
            seconds=options.seconds,
            down_s=options.down,
            rate=options.rate,
            fault=Fault(options.fault),
        )
    print(json.dumps(figures, indent=2))


def run(
    stage: Stage, *, seconds: float, down_s: float, rate: float, fault: Fault
) -> dict[str, Any]:
    """Ask `rate` queries a second; `best` is down for `down_s` from a third of the time on."""
    texts = [f"Question {number}" for number in range(int(seconds * rate))]
    with open_vendors(fault, texts) as vendors:
        stage.urls = vendors.urls
        stage.add_models([Model(arm=name, provider=name, model=name) for name in COST_USD])
        stage.start("router", ROUTER__POLICY="fixed:best")
        for provider in COST_USD:
            settings = {"WORKER__ATTEMPT_TIMEOUT_S": "2", "WORKER__BACKOFF_S": "0.05"}
            stage.start("worker", "--provider", provider, **settings)
        results: dict[str, Result] = {}
        decisions: dict[str, Decision] = {}

        def answered(message: Message) -> None:
            result = Result.parse(message.value())
            assert result.query_id not in results, "a query has two results"
            results[result.query_id] = result

        def decided(message: Message) -> None:
            decision = Decision.parse(message.value())
            decisions[decision.query_id] = decision

        went, came = _ask(stage, texts, vendors, seconds=seconds, down_s=down_s, rate=rate)
        for topic, seen in (
            (stage.names.results, answered),
            (stage.names.decisions, decided),
        ):
            with stage.reader(topic) as consumer:
                stage.read(consumer, len(texts), seen, 120)
    return _report([decisions[key] for key in results], results, went, came)


def _ask(
    stage: Stage,
    texts: Sequence[str],
    vendors: Vendors,
    *,
    seconds: float,
    down_s: float,
    rate: float,
) -> tuple[float, float]:
    """Write the queries evenly and take the vendor down meanwhile; when it went and came, in s."""
    began_s, down_at_s = time.time(), seconds / 3
    went_s, came_s = began_s + down_at_s, began_s + down_at_s + down_s
    pause = threading.Event()
    for number, text in enumerate(texts):
        pause.wait(max(0.0, began_s + number / rate - time.time()))
        vendors.is_down = went_s <= time.time() < came_s
        query = Query(query_id=f"q{number}", text=text)
        begin_write(stage.producer, Record.of(stage.names.queries, query.query_id, query))
    vendors.is_down = False
    stage.producer.flush(30)
    return went_s, came_s


def _report(
    decisions: Sequence[Decision], results: dict[str, Result], went_s: float, came_s: float
) -> dict[str, Any]:
    phases: dict[str, list[Result]] = {phase: [] for phase in PHASES}
    for decision in decisions:
        at_s = decision.decided_at.timestamp()
        phase = PHASES[(at_s >= went_s) + (at_s >= came_s)]
        phases[phase].append(results[decision.query_id])
    everyone = list(results.values())
    return {
        "queries": len(everyone),
        "answered_share": float(np.mean([result.failure is None for result in everyone])),
        "return_noticed_after_s": _noticed_s(decisions, came_s),
        "outage_noticed_after_s": _left_s(decisions, went_s),
        **{phase: _phase(found) for phase, found in phases.items() if found},
    }


def _phase(results: Sequence[Result]) -> dict[str, Any]:
    latencies_s = [result.latency_s for result in results]
    return {
        "queries": len(results),
        "answered_share": float(np.mean([result.failure is None for result in results])),
        "quality": float(np.mean([result.text == "right" for result in results])),
        "usd_per_1000": 1e3 * float(np.mean([result.cost_usd for result in results])),
        "latency_s_p50": float(np.percentile(latencies_s, 50)),
        "latency_s_p99": float(np.percentile(latencies_s, 99)),
        "answered_by": dict(Counter(result.arm for result in results)),
        "attempts": dict(Counter(one.arm for result in results for one in result.attempts)),
        "skipped": dict(Counter(one.arm for result in results for one in result.skipped)),
    }


def _moments(decisions: Sequence[Decision]) -> list[tuple[datetime, bool]]:
    """When each query was decided, and whether `best` was up for the router, in order."""
    return sorted(
        (one.decided_at, one.arm == "best" and one.propensity == 1.0) for one in decisions
    )


def _noticed_s(decisions: Sequence[Decision], came_s: float) -> float | None:
    """Seconds from the vendor's return until a query is sent to it that is no probe."""
    again = [at for at, is_up in _moments(decisions) if is_up and at.timestamp() >= came_s]
    return again[0].timestamp() - came_s if again else None


def _left_s(decisions: Sequence[Decision], went_s: float) -> float | None:
    """Seconds from the vendor's end until a query is not sent to it."""
    gone = [at for at, is_up in _moments(decisions) if not is_up and at.timestamp() >= went_s]
    return gone[0].timestamp() - went_s if gone else None


if __name__ == "__main__":
    main()
