"""Calls in flight: records in, a call for each, and what it came to, each as soon as it is done.

Invariant: a record counts as done only when what its call came to is committed together with the
offsets that say so; calls finish in any order, and a slow one holds back no other.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar

from metallm_stream.events import Call, Failure, Result
from metallm_stream.kafka import (
    Connection,
    ExactlyOnce,
    Partition,
    Record,
    TopicNames,
    Work,
    dead_letter,
    traced,
)
from metallm_stream.providers import Forward, Provider, Spending, finish
from metallm_stream.serve.call_metrics import CallMetrics
from metallm_stream.serve.lost_positions import after_outcomes
from metallm_stream.serve.spent import restore

_POLL_S = 0.005
_IDLE_POLL_S = 0.05

SubjectT = TypeVar("SubjectT")
Answerer = Callable[[Call, Provider], Coroutine[Any, Any, Result | Forward]]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How many calls at a time, and how long what waits may wait.

    Parameters
    ----------
    concurrency
        How many calls may be in flight.
    commit_interval_s
        Commits begin at least this far apart: a finished call waits so long for others at most.
    drain_s
        How long calls in flight may go on when the process is told to stop; the rest is done again
        by whoever comes next.
    """

    concurrency: int
    commit_interval_s: float
    drain_s: float


class Calls(Generic[SubjectT]):
    """The loop of a service that makes calls, many at a time, until it is told to stop.

    Parameters
    ----------
    connection, names
        The cluster and its topics.
    topic, group, slot
        What is read, as which member of which group.
    outcomes
        Where the records of `end` go that say that a call is over.
    open_provider
        Opens the provider; called, and closed again, in the thread of the calls.
    answer
        Turns a call into a result, or into a call for another provider. It does not raise.
    begin
        Called with each new record: it calls `ask` or `complete`.
    end
        The records that say what the call for a subject came to.
    limits
        How many, and how long.
    now
        Time, aware UTC.
    spending
        What this process has spent, if that is capped: told with the results that it paid for, and
        read again at the start.
    metrics
        Where all of it is counted.
    """

    def __init__(
        self,
        connection: Connection,
        names: TopicNames,
        topic: str,
        *,
        group: str,
        slot: str,
        outcomes: str,
        open_provider: Callable[[], Provider],
        answer: Answerer,
        begin: Callable[[Work], None],
        end: Callable[[SubjectT, Result | Forward], Sequence[Record]],
        limits: CallLimits,
        now: Callable[[], datetime],
        spending: Spending | None,
        metrics: CallMetrics,
    ) -> None:
        self._topic = topic
        self._metrics = metrics
        metrics.reads([topic])
        self._connection = connection
        self._names = names
        self._begin = begin
        self._end = end
        self._limits = limits
        self._now = now
        self._spending = spending
        self._thread = CallThread(open_provider, answer)
        self._in_flight: dict[Work, tuple[SubjectT, Call, Future[Result | Forward]]] = {}
        self._next_commit_s = 0.0
        self._loop = ExactlyOnce(
            connection,
            [topic],
            group=group,
            slot=slot,
            unplaced=partial(after_outcomes, connection, outcomes, group, alive=metrics.alive),
            last_records=self._told,
            on_dropped=self._cancel,
            on_committed=metrics.transaction_s.observe,
            on_aborted=metrics.aborts.inc,
        )

    def start(self) -> None:
        """Open the provider, join the group, and read what was spent before."""
        opening = self._thread.start()
        self._loop.start()
        opening.result()
        if self._spending is not None:
            restore(self._spending, self._connection, self._names)

    def step(self) -> None:
        """Begin what there is room for, and commit what has ended, if it is time."""
        room = self._limits.concurrency - len(self._in_flight)
        is_busy = bool(self._in_flight) or self._loop.has_pending
        wait_s = _POLL_S if is_busy else _IDLE_POLL_S
        works = self._loop.take(room, wait_s)
        for work in works:
            self._begin(work)
        self._collect(0.0 if room > 0 else _POLL_S)
        self._commit()
        self._metrics.turned(self._topic, len(works), in_flight=len(self._in_flight))
        self._metrics.stepped(self._loop.lags)

    def close(self) -> None:
        """Let calls in flight end for a while, commit them, and leave."""
        deadline = time.monotonic() + self._limits.drain_s
        while self._in_flight and time.monotonic() < deadline:
            self._loop.take(0, 0.0)
            self._collect(_POLL_S)
            self._commit()
            self._metrics.stepped(self._loop.lags)
        self._loop.close()
        self._thread.close()

    def ask(self, work: Work, subject: SubjectT, call: Call) -> None:
        """Begin the call for a record."""
        self._in_flight[work] = subject, call, self._thread.submit(call, work)

    def complete(self, work: Work, records: Sequence[Record]) -> None:
        """The record is done without a call."""
        self._loop.complete(work, records)

    def refuse(self, work: Work, service: str, reason: str) -> None:
        """The record cannot be read: it becomes a dead letter."""
        topic = self._names.dead_letters(self._topic)
        self.complete(work, [dead_letter(work.message, topic, service, reason)])
        self._metrics.dead_letters.labels(self._topic).inc()
        log.warning("%s@%d refused: %s", work.partition, work.offset, reason)

    def _collect(self, wait_s: float) -> None:
        ended = [
            (work, *self._in_flight.pop(work))
            for work in self._thread.ended(wait_s)
            if work in self._in_flight
        ]
        for work, subject, call, future in ended:
            outcome = self._outcome(call, future)
            self._metrics.ended(call, outcome)
            self._loop.complete(work, traced(self._end(subject, outcome), work.message))

    def _told(self) -> list[Record]:
        """What this process has spent by now."""
        if self._spending is None:
            return []
        spent = self._spending.tell()
        return [Record.of(self._names.health, spent.key, spent)]

    def _commit(self) -> None:
        began_s = time.monotonic()
        is_time = began_s >= self._next_commit_s and not self._loop.is_committing
        if self._loop.has_pending and is_time:
            self._next_commit_s = began_s + self._limits.commit_interval_s
            self._loop.commit()

    def _outcome(self, call: Call, future: Future[Result | Forward]) -> Result | Forward:
        """What the call came to. A call that breaks our own code fails alone, not its process."""
        error = future.exception()
        if error is None:
            return future.result()
        log.error(
            "call %s broke our own code",
            call.call_id,
            exc_info=error,
            extra={"query_id": call.query.query_id},
        )
        said = f"{type(error).__name__} in our own code"
        failure = Failure(kind="worker_error", message=said)
        skipped, now = call.skipped, self._now()
        return finish(call, call.attempts, skipped=skipped, failure=failure, finished_at=now)

    def _cancel(self, partitions: list[Partition]) -> None:
        for work in [work for work in self._in_flight if work.partition in partitions]:
            self._in_flight.pop(work)[-1].cancel()


class CallThread:
    """An asyncio loop in a thread of its own, in which the calls run."""

    def __init__(self, open_provider: Callable[[], Provider], answer: Answerer) -> None:
        self._open_provider = open_provider
        self._answer = answer
        self._ended: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._provider: Provider | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="calls", daemon=True)

    def start(self) -> Future[None]:
        """Start the thread and begin to open the provider in it: a second, for its SDK."""
        self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._open(), self._loop)

    def submit(self, call: Call, work: Work) -> Future[Result | Forward]:
        """Begin one call; `ended` tells when its future is done."""
        assert self._provider is not None
        future = asyncio.run_coroutine_threadsafe(self._answer(call, self._provider), self._loop)
        future.add_done_callback(lambda _: self._ended.put(work))
        return future

    def ended(self, wait_s: float) -> list[Work]:
        """The work whose calls have ended since, waiting at most `wait_s` for the first one."""
        ended = []
        try:
            ended.append(self._ended.get(timeout=wait_s) if wait_s else self._ended.get_nowait())
            while True:
                ended.append(self._ended.get_nowait())
        except queue.Empty:
            return ended

    def close(self) -> None:
        """Cancel what still runs, close the provider and end the thread."""
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        self._provider = self._open_provider()

    async def _shut(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._provider is not None:
            await self._provider.close()
