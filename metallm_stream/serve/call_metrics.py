"""What workers and judges count beside their loop: results, tries, latencies, spend, circuits.

Invariant: each try is counted where it was made, so that a call passed on counts none twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import get_args

from metallm_stream.events import ArmHealth, Call, FailureKind, Result
from metallm_stream.providers import Forward
from metallm_stream.serve.metrics import LoopMetrics

LATENCY_S = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)
ANSWERED, FORWARDED, SUPERSEDED = "answered", "forwarded", "superseded"
ALL_ARMS = "*"


class CallMetrics(LoopMetrics):
    """The metrics of one service that makes calls, of which replica `slot` is."""

    def __init__(self, service: str, slot: str, *, provider: str = "") -> None:
        super().__init__(service, slot, provider=provider)
        self._records = cache(self.records.labels)
        self._results = cache(
            self.counter(
                "results", "Calls that ended: answered, forwarded, or a kind of failure.", "outcome"
            ).labels
        )
        for outcome in (ANSWERED, FORWARDED, *get_args(FailureKind)):
            self._results(outcome)  # at 0
        self._attempts = cache(
            self.counter(
                "attempts", "Tries, answered or a kind of failure.", "arm", "outcome"
            ).labels
        )
        self._latency_s = cache(
            self.histogram(
                "attempt_seconds", "Time of a try that was not broken off.", LATENCY_S, "arm"
            ).labels
        )
        self._spend_usd = cache(self.counter("spend_usd", "Known costs of tries.", "arm").labels)
        self._fallbacks = self.counter("fallbacks", "Arms tried for a call after its first.")
        self._in_flight = self.gauge("calls_in_flight", "Calls begun and not ended.")
        self._open = self.gauge(
            "circuit_open", "1 while the arm's circuit is open; * is the whole provider.", "arm"
        )

    def ended(self, call: Call, outcome: Result | Forward) -> None:
        """Count a call, and the tries that were made since it came here."""
        if isinstance(outcome, Forward):
            said, attempts = FORWARDED, outcome.call.attempts
        else:
            said = ANSWERED if outcome.failure is None else outcome.failure.kind
            attempts = outcome.attempts
        self._results(said).inc()
        for made in attempts[len(call.attempts) :]:
            ended = ANSWERED if made.failure is None else made.failure.kind
            self._attempts(made.arm, ended).inc()
            if ended != SUPERSEDED:
                self._latency_s(made.arm).observe(made.latency_s)
            if made.cost_usd:
                self._spend_usd(made.arm).inc(made.cost_usd)
        if len(attempts) > 1:
            before = len({made.arm for made in call.attempts}) or 1
            self._fallbacks.inc(len({made.arm for made in attempts}) - before)

    def turned(self, topic: str, taken: int, *, in_flight: int) -> None:
        """Note what a turn of the loop has taken from its topic, and the calls in flight."""
        self._records(topic).inc(taken)
        self._in_flight.set(in_flight)

    def circuits(self, news: Iterable[ArmHealth]) -> None:
        """Note what is new of circuits; one that is closed for a reason is forgotten."""
        for told in news:
            arm = told.arm or ALL_ARMS
            if told.state == "closed" and told.reason is not None:
                self._open.remove(arm)
            else:
                self._open.labels(arm).set(told.state == "open")
