"""The judge: cases in, verdicts of a judge model out, each as soon as it is done.

Invariant: a case counts as judged only when its verdict is committed together with the offsets that
say so, and each that can be read ends in exactly one: a score, or the reason why there is none.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime

from metallm_stream.errors import InvalidEvent
from metallm_stream.events import Call, Case, Failure, Generation, Model, Query, Result, Verdict
from metallm_stream.judge import Template, is_own, judge_prompt, read_score
from metallm_stream.kafka import (
    Connection,
    ExactlyOnce,
    Partition,
    Record,
    TopicNames,
    Work,
    dead_letter,
)
from metallm_stream.providers import Forward, Provider, Spending
from metallm_stream.serve.spent import restore
from metallm_stream.serve.worker import Answerer, CallThread

SERVICE = "judge"
NO_SCORE = Failure(
    kind="malformed_answer", message="no score from 0 to 10 stands alone on its last line"
)
OWN = Failure(kind="unsupported", message="a model does not judge its own answers")
MAX_TEXT_CHARACTERS = 2_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rubric:
    """Who judges, how it is asked, and what its scores count."""

    model: Model
    template: Template
    generation: Generation
    weight: float

    def call(self, case: Case, now: datetime) -> Call:
        """The call to the judge model; its id is not that of the judged call."""
        identity = f"{case.call_id}\n{self.template.mark}"
        return Call(
            call_id=hashlib.sha256(identity.encode()).hexdigest()[:32],
            query=Query(
                query_id=case.query_id,
                text=judge_prompt(case, self.template),
                system=self.template.system,
                generation=self.generation,
            ),
            ranking=(self.model,),
            decided_at=now,
        )

    def verdict(self, case: Case, said: Result) -> Verdict:
        """What the judge model said of the case."""
        score = None if said.text is None else read_score(said.text)
        costs = [one.cost_usd for one in said.attempts if one.cost_usd is not None]
        return Verdict(
            query_id=case.query_id,
            call_id=case.call_id,
            arm=case.arm,
            judge=f"{self.model.provider}/{self.model.model}",
            template=self.template.mark,
            score=score,
            failure=None if score is not None else said.failure or NO_SCORE,
            weight=self.weight,
            text=None if said.text is None else said.text[:MAX_TEXT_CHARACTERS],
            input_tokens=said.input_tokens,
            output_tokens=said.output_tokens,
            cost_usd=sum(costs) if costs or not said.attempts else None,
            latency_s=said.latency_s,
            finished_at=said.finished_at,
        )


class Judge:
    """Judges cases, many at a time, until it is told to stop.

    Parameters
    ----------
    connection, names
        The cluster and its topics.
    rubric
        Who judges, and how.
    open_provider
        Opens the judge model's provider; called, and closed again, in the thread of the calls.
    answer
        Turns a call to the judge model into a result. It does not raise.
    spending
        What this judge has spent: told with the verdicts that it paid for, and read again at the
        start.
    slot
        Which replica this is.
    concurrency, commit_interval_s, drain_s
        As of a worker.
    now
        Time, aware UTC.
    """

    def __init__(
        self,
        connection: Connection,
        names: TopicNames,
        rubric: Rubric,
        open_provider: Callable[[], Provider],
        answer: Answerer,
        spending: Spending,
        *,
        slot: str,
        concurrency: int,
        commit_interval_s: float,
        drain_s: float,
        now: Callable[[], datetime],
    ) -> None:
        self._connection = connection
        self._names = names
        self._rubric = rubric
        self._spending = spending
        self._concurrency = concurrency
        self._commit_interval_s = commit_interval_s
        self._drain_s = drain_s
        self._now = now
        self._calls = CallThread(open_provider, answer)
        self._in_flight: dict[Work, tuple[Case, Future[Result | Forward]]] = {}
        self._is_full = False
        self._loop = ExactlyOnce(
            connection,
            [names.cases],
            group=f"{names.prefix}metallm-judge",
            slot=slot,
            on_dropped=self._cancel,
        )

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set, let calls in flight end for a while, and leave."""
        self._calls.start()
        self._loop.start()
        restore(self._spending, self._connection, self._names)
        log.info("judge is ready: %s", self._rubric.model.arm)
        while not stop.is_set():
            self.step(self._free())
        deadline = time.monotonic() + self._drain_s
        while self._in_flight and time.monotonic() < deadline:
            self.step(0)
        self._loop.close()
        self._calls.close()

    def step(self, limit: int) -> None:
        """Begin up to `limit` cases and commit the verdicts on those that have ended."""
        for work in self._loop.take(limit, self._commit_interval_s):
            self._begin(work)
        self._finish(0.0 if limit else self._commit_interval_s)
        self._loop.commit()

    def _free(self) -> int:
        """How many cases may begin; 0 until a quarter is free again, as in a worker."""
        free = self._concurrency - len(self._in_flight)
        self._is_full = free < (max(1, self._concurrency // 4) if self._is_full else 1)
        return 0 if self._is_full else free

    def _begin(self, work: Work) -> None:
        try:
            case = Case.parse(work.message.value())
        except InvalidEvent as exc:
            topic = self._names.dead_letters(self._names.cases)
            self._loop.complete(work, [dead_letter(work.message, topic, SERVICE, exc.reason)])
            log.warning("case at %s@%d refused: %s", work.partition, work.offset, exc.reason)
            return
        if is_own(case, self._rubric.model.model):
            self._complete(work, case, self._failed(case, OWN))
            return
        call = self._rubric.call(case, self._now())
        self._in_flight[work] = case, self._calls.submit(call, work)

    def _finish(self, wait_s: float) -> None:
        for work, future in self._calls.ended(wait_s):
            case, _ = self._in_flight.pop(work, (None, None))
            if case is not None:
                self._complete(work, case, self._said(case, future))

    def _complete(self, work: Work, case: Case, said: Result) -> None:
        verdict = self._rubric.verdict(case, said)
        records = [Record.of(self._names.verdicts, case.query_id, verdict)]
        if said.attempts:
            spent = self._spending.tell()
            records.append(Record.of(self._names.health, spent.key, spent))
        self._loop.complete(work, records)

    def _said(self, case: Case, future: Future[Result | Forward]) -> Result:
        """What the call came to. A case that breaks our own code fails alone, not its judge."""
        error = future.exception()
        outcome = None if error is not None else future.result()
        if isinstance(outcome, Result):
            return outcome
        log.error("the case of query %s broke the judge's code", case.query_id, exc_info=error)
        reason = f"{type(error).__name__} in the judge"
        return self._failed(case, Failure(kind="worker_error", message=reason))

    def _failed(self, case: Case, failure: Failure) -> Result:
        return Result(query_id=case.query_id, failure=failure, finished_at=self._now())

    def _cancel(self, partitions: list[Partition]) -> None:
        for work in [work for work in self._in_flight if work.partition in partitions]:
            self._in_flight.pop(work)[1].cancel()
