"""The worker: one provider's calls in, results out, each as soon as it is done.

Invariant: a call counts as done only when its result is committed together with the offsets that
say so; calls finish in any order, and a slow one holds back no other.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Any

from metallm_stream.errors import InvalidEvent
from metallm_stream.events import ArmHealth, Call, Case, Failure, Result
from metallm_stream.kafka import (
    Connection,
    ExactlyOnce,
    Partition,
    Record,
    TopicNames,
    Work,
    begin_write,
    dead_letter,
)
from metallm_stream.providers import Forward, Provider, Spending
from metallm_stream.serve.spent import restore

SERVICE = "worker"

log = logging.getLogger(__name__)
Answerer = Callable[[Call, Provider], Coroutine[Any, Any, Result | Forward]]


class Worker:
    """Answers calls for one provider, many at a time, until it is told to stop.

    Parameters
    ----------
    connection, names
        The cluster and its topics.
    open_provider
        Opens the provider; called, and closed again, in the thread of the calls.
    answer
        Turns a call into a result, or into a call for another provider. It does not raise.
    slot
        Which replica this is.
    concurrency
        How many calls may be in flight.
    commit_interval_s
        How long a finished result waits for others at most.
    drain_s
        How long calls in flight may go on after `stop`; the rest is done again by whoever comes
        next.
    now
        Time, aware UTC.
    health
        What there is to tell of the arms' health, asked for with every step.
    spending
        What this worker has spent, if that is capped: told with the results that it paid for, and
        read again at the start.
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
        concurrency: int,
        commit_interval_s: float,
        drain_s: float,
        now: Callable[[], datetime],
        health: Callable[[], Sequence[ArmHealth]] = tuple,
        spending: Spending | None = None,
        draw: Callable[[Call, Result], Case | None] | None = None,
    ) -> None:
        self._names = names
        self._topic = names.calls(provider)
        self._concurrency = concurrency
        self._commit_interval_s = commit_interval_s
        self._drain_s = drain_s
        self._now = now
        self._connection = connection
        self._health = health
        self._spending = spending
        self._draw = draw
        self._health_producer = connection.producer()
        self._down: set[str] = set()
        self._calls = CallThread(open_provider, answer)
        self._in_flight: dict[Work, Future[Result | Forward]] = {}
        self._is_full = False
        self._loop = ExactlyOnce(
            connection,
            [self._topic],
            group=f"{names.prefix}metallm-worker-{provider}",
            slot=slot,
            on_dropped=self._cancel,
        )

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set, let calls in flight end for a while, and leave."""
        self._calls.start()
        self._loop.start()
        if self._spending is not None:
            restore(self._spending, self._connection, self._names)
        log.info("worker for %s is ready", self._topic)
        while not stop.is_set():
            self.step(self._free())
        deadline = time.monotonic() + self._drain_s
        while self._in_flight and time.monotonic() < deadline:
            self.step(0)
        self._loop.close()
        self._calls.close()
        self._health_producer.flush(1.0)

    def step(self, limit: int) -> None:
        """Begin up to `limit` calls and commit those that have ended."""
        for work in self._loop.take(limit, self._commit_interval_s):
            self._begin(work)
        self._finish(0.0 if limit else self._commit_interval_s)
        self._loop.commit()
        self._tell_health()

    def _free(self) -> int:
        """How many calls may begin; 0 until a quarter is free again, so that we pause seldom."""
        free = self._concurrency - len(self._in_flight)
        self._is_full = free < (max(1, self._concurrency // 4) if self._is_full else 1)
        return 0 if self._is_full else free

    def _tell_health(self) -> None:
        """Hand over what is new of the arms' health, without waiting for the brokers."""
        for health in self._health():
            was_down = health.key in self._down
            if health.state == "open" and not was_down:
                self._down.add(health.key)
                log.warning("%s is down: %s", health.arm or health.provider, health.reason)
            elif health.state == "closed" and was_down:
                self._down.discard(health.key)
                log.warning("%s is up again", health.arm or health.provider)
            begin_write(self._health_producer, Record.of(self._names.health, health.key, health))

    def _begin(self, work: Work) -> None:
        try:
            call = Call.parse(work.message.value())
        except InvalidEvent as exc:
            topic = self._names.dead_letters(self._topic)
            self._loop.complete(work, [dead_letter(work.message, topic, SERVICE, exc.reason)])
            log.warning("call at %s@%d refused: %s", work.partition, work.offset, exc.reason)
            return
        self._in_flight[work] = self._calls.submit(call, work)

    def _finish(self, wait_s: float) -> None:
        ended = [
            (work, future)
            for work, future in self._calls.ended(wait_s)
            if self._in_flight.pop(work, None) is not None
        ]
        for place, (work, future) in enumerate(ended):
            outcome = self._outcome(work, future)
            records = [self._record(outcome), *self._drawn(work, outcome)]
            if self._spending is not None and place == len(ended) - 1:
                spent = self._spending.tell()
                records.append(Record.of(self._names.health, spent.key, spent))
            self._loop.complete(work, records)

    def _outcome(self, work: Work, future: Future[Result | Forward]) -> Result | Forward:
        """What the call came to. A call that breaks our own code fails alone, not its worker."""
        error = future.exception()
        if error is None:
            return future.result()
        call = Call.parse(work.message.value())
        log.error("call %s broke the worker's code", call.call_id, exc_info=error)
        return Result(
            query_id=call.query.query_id,
            call_id=call.call_id,
            failure=Failure(kind="worker_error", message=f"{type(error).__name__} in the worker"),
            attempts=call.attempts,
            finished_at=self._now(),
        )

    def _record(self, outcome: Result | Forward) -> Record:
        if isinstance(outcome, Forward):
            topic = self._names.calls(outcome.call.ranking[0].provider)
            return Record.of(topic, outcome.call.call_id, outcome.call)
        return Record.of(self._names.results, outcome.query_id, outcome)

    def _drawn(self, work: Work, outcome: Result | Forward) -> list[Record]:
        """The case for the judge model, in the transaction of its result."""
        if self._draw is None or not isinstance(outcome, Result) or outcome.failure is not None:
            return []
        case = self._draw(Call.parse(work.message.value()), outcome)
        return [] if case is None else [Record.of(self._names.cases, case.query_id, case)]

    def _cancel(self, partitions: list[Partition]) -> None:
        for work in [work for work in self._in_flight if work.partition in partitions]:
            self._in_flight.pop(work).cancel()


class CallThread:
    """An asyncio loop in a thread of its own, in which the calls run."""

    def __init__(self, open_provider: Callable[[], Provider], answer: Answerer) -> None:
        self._open_provider = open_provider
        self._answer = answer
        self._ended: queue.SimpleQueue[tuple[Work, Future[Result | Forward]]] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._provider: Provider | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="calls", daemon=True)

    def start(self) -> None:
        """Start the thread and open the provider in it."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    def submit(self, call: Call, work: Work) -> Future[Result | Forward]:
        """Begin one call; `ended` gives it back with its future."""
        assert self._provider is not None
        future = asyncio.run_coroutine_threadsafe(self._answer(call, self._provider), self._loop)
        future.add_done_callback(lambda done: self._ended.put((work, done)))
        return future

    def ended(self, wait_s: float) -> list[tuple[Work, Future[Result | Forward]]]:
        """The calls that have ended since, waiting at most `wait_s` for the first one."""
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
