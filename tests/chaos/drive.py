"""One schedule from start to verdict: traffic and faults by the clock, then the checker.

Invariant: whatever the faults, the stream gets its time to settle before it is judged.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer

from metallm_stream.kafka import Record
from tests.chaos.checker import History, Violation, check, extra_calls, story
from tests.chaos.faults import Schedule
from tests.chaos.recovery import recoveries
from tests.chaos.servers import Servers
from tests.chaos.stage import Stage, open_stage
from tests.chaos.stranger import comes_to_zero, read_history, unjudged, wait_until_learned
from tests.chaos.traffic import query, steps
from tests.chaos.watch import Watch

CHUNK = 10
STEP_S = 0.2
# Machines may be slow; whoever gets nothing done for so long is stuck.
STUCK_S = 60.0


@dataclass(frozen=True)
class Verdict:
    """What came of one schedule.

    Attributes
    ----------
    seconds
        From the first query to the last lesson.
    recoveries
        Seconds from kills to the first fruits of queries sent after them, by victim.
    stories
        The histories around the first violations of each kind.
    """

    schedule: Schedule
    queries: int
    seconds: float
    violations: tuple[Violation, ...]
    extra_calls: int
    recoveries: dict[str, list[float]]
    stories: tuple[str, ...] = field(repr=False)


def run(servers: Servers, schedule: Schedule, queries: int, directory: Path) -> Verdict:
    """Play a schedule and judge it."""
    with open_stage(servers, schedule, directory) as stage:
        watch = Watch(stage.pipeline)
        stage.start(queries)
        began_s = time.monotonic()
        with watch.watching():
            asked = play(stage, queries)
            missing = stage.settle()
            if not comes_to_zero(lambda: len(asked) - watch.count("results"), STUCK_S):
                missing.append("somebody who answers")
            if not comes_to_zero(lambda: unjudged(stage.pipeline), STUCK_S):
                missing.append("somebody who judges")
            if not wait_until_learned(stage.pipeline, STUCK_S):
                missing.append("a learner that learns")
            seconds = time.monotonic() - began_s
        history = read_history(
            stage.pipeline,
            asked=asked,
            ledger=stage.ledger,
            progress=watch.progress,
            events=stage.events,
        )
        return _judged(stage, watch, history, missing, seconds=seconds)


def play(stage: Stage, queries: int) -> set[str]:
    """Send the traffic and strike by the clock; the ids that the brokers acknowledged."""
    schedule, pipeline = stage.schedule, stage.pipeline
    users = _Users(pipeline.bootstrap)
    traffic = steps(pipeline.names, queries, chunk=CHUNK, seed=schedule.seed, bad=schedule.bad)
    due: list[tuple[float, int, Callable[[], None]]] = [
        (number * STEP_S, number, lambda step=step: users.send(step.records))
        for number, step in enumerate(traffic)
    ]
    due += [
        (fault.at_s, len(due) + number, lambda fault=fault: stage.strike(fault))
        for number, fault in enumerate(schedule.faults)
    ]
    began_s, pause = time.monotonic(), threading.Event()
    for at_s, _, act in sorted(due, key=lambda one: one[:2]):
        pause.wait(max(0.0, began_s + at_s - time.monotonic()))
        act()
    users.flush()
    numbers = {query(number).query_id for number in range(queries)}
    return users.acknowledged & numbers


class _Users:
    """The users' producer: idempotent, and patient while brokers are away."""

    def __init__(self, bootstrap: str) -> None:
        self.acknowledged: set[str] = set()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "log_level": 0,
                "reconnect.backoff.max.ms": 250,
            }
        )

    def send(self, records: Sequence[Record]) -> None:
        for record in records:
            self._producer.produce(
                record.topic,
                key=record.key,
                value=record.value,
                headers=list(record.headers),
                on_delivery=self._delivered,
            )
        self._producer.poll(0)

    def flush(self) -> None:
        left = self._producer.flush(60)
        assert not left, f"{left} records of users were not acknowledged"

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None and (message.topic() or "").endswith("queries"):
            self.acknowledged.add((message.key() or b"").decode(errors="replace"))


def _judged(
    stage: Stage, watch: Watch, history: History, missing: Sequence[str], *, seconds: float
) -> Verdict:
    violations = [Violation("not back", f"{name} is missing") for name in missing]
    violations += check(history)
    first = {violation.kind: violation for violation in reversed(violations)}
    stories = [story(history, violation) for violation in first.values()]
    if stories:
        stories.append(stage.tails())
    return Verdict(
        schedule=stage.schedule,
        queries=len(history.asked),
        seconds=seconds,
        violations=tuple(violations),
        extra_calls=extra_calls(history),
        recoveries=recoveries(history, watch.arrivals, stage.struck),
        stories=tuple(stories),
    )
