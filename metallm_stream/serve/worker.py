"""The worker: one provider's calls in, results out, each as soon as it is done."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime

from metallm_stream.errors import InvalidEvent
from metallm_stream.events import ArmHealth, Call, Case, Failure, Result
from metallm_stream.kafka import (
    Connection,
    Record,
    TopicNames,
    Work,
    begin_write,
    no_topic,
    providers_with_topics,
)
from metallm_stream.providers import Forward, Provider, Spending, finish
from metallm_stream.serve.call_metrics import CallMetrics
from metallm_stream.serve.calls import Answerer, CallLimits, Calls

SERVICE = "worker"

log = logging.getLogger(__name__)


class Worker:
    """Answers calls for one provider, many at a time, until it is told to stop.

    Parameters
    ----------
    connection, names
        The cluster and its topics.
    open_provider, answer, limits, now, spending
        See `Calls`.
    slot
        Which replica this is.
    health
        What there is to tell of the arms' health, asked for with every step.
    draw
        What of an answer is put before the judge model, if that is to have any.
    """

    def __init__(
        self,
        connection: Connection,
        names: TopicNames,
        provider: str,
        open_provider: Callable[[], Provider],
        answer: Answerer,
        *,
        slot: str,
        limits: CallLimits,
        now: Callable[[], datetime],
        health: Callable[[], Sequence[ArmHealth]] = tuple,
        spending: Spending | None = None,
        draw: Callable[[Call, Result], Case | None] | None = None,
    ) -> None:
        self.metrics = CallMetrics(SERVICE, slot, provider=provider)
        self._names = names
        self._topic = names.calls(provider)
        self._health = health
        self._draw = draw
        self._now = now
        self._health_producer = connection.producer()
        self._admin = connection.admin()
        self._providers: frozenset[str] = frozenset()
        self._down: set[str] = set()
        self._calls = Calls(
            connection,
            names,
            self._topic,
            group=f"{names.prefix}metallm-worker-{provider}",
            slot=slot,
            outcomes=names.results,
            open_provider=open_provider,
            answer=answer,
            begin=self._begin,
            end=self._records,
            limits=limits,
            now=now,
            spending=spending,
            metrics=self.metrics,
        )

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set, let calls in flight end for a while, and leave."""
        self._calls.start()
        log.info("worker for %s is ready", self._topic)
        while not stop.is_set():
            self._calls.step()
            self._tell_health()
        self._calls.close()
        self._health_producer.flush(1.0)

    def _tell_health(self) -> None:
        """Hand over what is new of the arms' health, without waiting for the brokers."""
        news = self._health()
        self.metrics.circuits(news)
        for health in news:
            was_down = health.key in self._down
            if health.state == "open" and not was_down:
                self._down.add(health.key)
                log.warning("%s is down: %s", health.arm or health.provider, health.reason)
            elif health.state == "closed" and was_down:
                self._down.discard(health.key)
                how = "up again" if health.reason is None else f"down no more: {health.reason}"
                log.warning("%s is %s", health.arm or health.provider, how)
            begin_write(self._health_producer, Record.of(self._names.health, health.key, health))

    def _begin(self, work: Work) -> None:
        try:
            call = Call.parse(work.message.value())
        except InvalidEvent as exc:
            self._calls.refuse(work, SERVICE, exc.reason)
            return
        self._calls.ask(work, call, call)

    def _records(self, call: Call, outcome: Result | Forward) -> list[Record]:
        """What the call came to, and the case for the judge model if it is drawn."""
        if isinstance(outcome, Forward):
            if self._has_topic(outcome.provider):
                topic = self._names.calls(outcome.provider)
                return [Record.of(topic, outcome.call.call_id, outcome.call)]
            outcome = self._undeliverable(outcome.call, outcome.provider)
        records = [Record.of(self._names.results, outcome.query_id, outcome)]
        if self._draw is not None and outcome.failure is None:
            case = self._draw(call, outcome)
            if case is not None:
                records.append(Record.of(self._names.cases, case.query_id, case))
        return records

    def _has_topic(self, provider: str) -> bool:
        if provider not in self._providers:
            self._providers = providers_with_topics(self._admin, self._names)
        return provider in self._providers

    def _undeliverable(self, call: Call, provider: str) -> Result:
        """The end of a call whose next arm is at a provider that nobody can be asked at."""
        reason = no_topic(self._names.calls(provider))
        log.error("call %s cannot go on: %s", call.call_id, reason)
        failure = Failure(kind="unsupported", message=reason)
        skipped, now = call.skipped, self._now()
        return finish(call, call.attempts, skipped=skipped, failure=failure, finished_at=now)
