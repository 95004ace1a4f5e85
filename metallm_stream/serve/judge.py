"""The judge: cases in, verdicts of a judge model out, each as soon as it is done.

Invariant: a case counts as judged only when its verdict is committed together with the offsets that
say so, and each that can be read ends in exactly one: a score, or the reason why there is none.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from metallm_stream.errors import InvalidEvent
from metallm_stream.events import Call, Case, Failure, Generation, Model, Query, Result, Verdict
from metallm_stream.judge import Template, is_own, judge_prompt, read_score
from metallm_stream.kafka import Connection, Record, TopicNames, Work, traced
from metallm_stream.providers import Forward, Provider, Spending
from metallm_stream.serve.call_metrics import CallMetrics
from metallm_stream.serve.calls import Answerer, CallLimits, Calls

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
    open_provider, answer, spending, limits, now
        See `Calls`; the calls are those to the judge model.
    slot
        Which replica this is.
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
        limits: CallLimits,
        now: Callable[[], datetime],
    ) -> None:
        self.metrics = CallMetrics(SERVICE, slot)
        self._names = names
        self._rubric = rubric
        self._now = now
        self._calls = Calls(
            connection,
            names,
            names.cases,
            group=f"{names.prefix}metallm-judge",
            slot=slot,
            outcomes=names.verdicts,
            open_provider=open_provider,
            answer=answer,
            begin=self._begin,
            end=self._verdict,
            limits=limits,
            now=now,
            spending=spending,
            metrics=self.metrics,
        )

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set, let calls in flight end for a while, and leave."""
        self._calls.start()
        log.info("judge is ready: %s", self._rubric.model.arm)
        while not stop.is_set():
            self._calls.step()
        self._calls.close()

    def _begin(self, work: Work) -> None:
        try:
            case = Case.parse(work.message.value())
        except InvalidEvent as exc:
            self._calls.refuse(work, SERVICE, exc.reason)
            return
        if is_own(case, self._rubric.model.model):
            said = Result(query_id=case.query_id, failure=OWN, finished_at=self._now())
            self._calls.complete(work, traced(self._verdict(case, said), work.message))
            return
        self._calls.ask(work, case, self._rubric.call(case, self._now()))

    def _verdict(self, case: Case, said: Result | Forward) -> list[Record]:
        assert isinstance(said, Result)  # its ranking has one arm, so there is nobody to forward to
        verdict = self._rubric.verdict(case, said)
        return [Record.of(self._names.verdicts, case.query_id, verdict)]
