"""What every service counts, for Prometheus, and the signs of life that probes ask for.

Invariant: a service's own loop writes here once a batch and never waits; labels are topics, arms
and kinds of failure, whose number the catalogue bounds, and never what users or vendors choose.
Whoever reads does so in another thread, and changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from metallm_stream.kafka import Partition

LAGS_EVERY_S = 1.0
READY_WITHIN_S = 30.0
TRANSACTION_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class LoopMetrics(Collector):
    """What one service tells of its loop; each service adds its own.

    Parameters
    ----------
    service, slot
        Whose they are.
    provider
        Whose calls the service makes, if it is the worker of one.
    clock
        Monotonic seconds.
    """

    def __init__(
        self,
        service: str,
        slot: str,
        *,
        provider: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._stepped_s = clock()
        self._lags: Mapping[Partition, int | None] | None = None
        self._lags_due_s = 0.0
        self.records = self.counter("records", "Records read.", "topic")
        self.dead_letters = self.counter("dead_letters", "Records refused, by topic.", "topic")
        self.transaction_s = self.histogram(
            "transaction_seconds",
            "From begin to commit: Kafka's transactions, those of PostgreSQL in a learner.",
            TRANSACTION_S,
        )
        self.aborts = self.counter("transactions_aborted", "Transactions aborted and tried again.")
        labels = ("service", "slot", "provider", "version")
        info = self.gauge("service_info", "1; which service it is.", *labels)
        info.labels(service, slot, provider, version("metallm-stream")).set(1)
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def reads(self, topics: Iterable[str]) -> None:
        """Show the counters of these topics at 0: who first sees one at 1 sees no increase."""
        for topic in topics:
            self.records.labels(topic)
            self.dead_letters.labels(topic)

    def stepped(self, lags: Callable[[], Mapping[Partition, int | None] | None]) -> None:
        """Note that the loop has come round; once a second `lags` is asked.

        It gives how many records of each partition held are unread or unfinished, None where the
        broker has not said, and None for all while the service is in no group.
        """
        self._stepped_s = self._clock()
        if self._stepped_s >= self._lags_due_s:
            self._lags_due_s = self._stepped_s + LAGS_EVERY_S
            self._lags = lags()

    def alive(self) -> None:
        """Note that what must be done before the loop begins goes on."""
        self._stepped_s = self._clock()

    def stuck_s(self) -> float:
        """Seconds since the loop came round last, or what comes before it went on."""
        return self._clock() - self._stepped_s

    def unready(self) -> str | None:
        """Why the service cannot do its work now; None if it can."""
        if self._lags is None:
            return "the consumer group has assigned nothing"
        stuck_s = self.stuck_s()
        return None if stuck_s < READY_WITHIN_S else f"the loop is stuck for {stuck_s:.0f} s"

    def collect(self) -> Iterator[Metric]:
        """What is known only when it is asked for."""
        yield GaugeMetricFamily(
            "metallm_step_age_seconds", "Since the loop came round last.", self.stuck_s()
        )
        lags = self._lags or {}
        yield GaugeMetricFamily("metallm_partitions", "Partitions assigned.", len(lags))
        family = GaugeMetricFamily(
            "metallm_lag_records",
            "Records not read or not finished; transaction markers count as well.",
            labels=("topic", "partition"),
        )
        for (topic, partition), lag in lags.items():
            if lag is not None:
                family.add_metric((topic, str(partition)), lag)
        yield family

    def counter(self, name: str, said: str, *labels: str) -> Counter:
        """A counter of ours."""
        return Counter(f"metallm_{name}", said, labels, registry=self.registry)

    def gauge(self, name: str, said: str, *labels: str) -> Gauge:
        """A gauge of ours."""
        return Gauge(f"metallm_{name}", said, labels, registry=self.registry)

    def histogram(self, name: str, said: str, buckets: Sequence[float], *labels: str) -> Histogram:
        """A histogram of ours, with the upper bounds of its buckets."""
        return Histogram(f"metallm_{name}", said, labels, buckets=buckets, registry=self.registry)
