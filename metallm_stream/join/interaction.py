"""What is known of one query so far, merged from its decision, result, feedback and verdict.

Invariant: merging is commutative, associative and idempotent (each part is a maximum or minimum
under a total order), so that duplicates and any order of arrival end in the same interaction.
A judge model's verdict is never feedback: it is kept beside it, and counts only while no user has
said anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from metallm_stream.errors import InvalidEvent
from metallm_stream.events import Decision, Feedback, Result, Verdict
from metallm_stream.judge import Unjudgeable, quality

MAX_FEEDBACK = 16
OTHER_DECISION = "the first result belongs to another decision of the same query_id"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The feedback in force for one query.

    Attributes
    ----------
    quality
        In [0, 1], or None while there is no feedback, no result, or a `problem`.
    feedback
        The deciding feedback, or None when there is none that is not withdrawn.
    problem
        Why the feedback could not be turned into a quality.
    """

    quality: float | None = None
    feedback: Feedback | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Interaction:
    """Decision, result, feedback and verdict of one query, as far as they have come.

    `feedback` holds the newest of each feedback id, newest last, at most `MAX_FEEDBACK`; `verdict`
    the newest that has a score, or else the newest.
    """

    query_id: str
    decision: Decision | None = None
    result: Result | None = None
    feedback: tuple[Feedback, ...] = ()
    verdict: Verdict | None = None
    _judgement: Judgement | None = field(default=None, init=False, repr=False, compare=False)

    def merged(self, event: Decision | Result | Feedback | Verdict) -> Interaction:
        """Return this interaction with one more event; itself when nothing changes."""
        if event.query_id != self.query_id:
            raise ValueError(f"event of {event.query_id!r} merged into {self.query_id!r}")
        decision, result = self.decision, self.result
        feedback, verdict = self.feedback, self.verdict
        if isinstance(event, Decision):
            decision = _first_decision(decision, event)
        elif isinstance(event, Result):
            result = _first_result(result, event)
        elif isinstance(event, Feedback):
            feedback = _newest_feedback(feedback, event)
        else:
            verdict = _last_verdict(verdict, event)
        is_new = decision is not self.decision or result is not self.result
        if is_new or feedback != self.feedback or verdict is not self.verdict:
            return Interaction(self.query_id, decision, result, feedback, verdict)
        return self

    def judged(self) -> Judgement:
        """The judgement in force; a label counts once decision and result are both known."""
        if self._judgement is None:  # several parts of a learner ask
            object.__setattr__(self, "_judgement", self._judge())
        assert self._judgement is not None
        return self._judgement

    def _judge(self) -> Judgement:
        valid = [item for item in self.feedback if not item.withdrawn]
        if not valid:
            return Judgement()
        newest = valid[-1]
        if self.result is None or self.decision is None:
            return Judgement(feedback=newest)
        if self.result.call_id is not None and self.result.call_id != self.decision.call_id:
            return Judgement(feedback=newest, problem=OTHER_DECISION)
        if self.result.failure is not None:
            return Judgement(0.0, newest)
        try:
            value = quality(
                prediction=self.result.prediction,
                label=newest.label,
                score=newest.score,
                labels=self.decision.labels,
                task=self.decision.task,
                answer=self.decision.answer,
            )
        except Unjudgeable as exc:
            return Judgement(feedback=newest, problem=str(exc))
        return Judgement(value, newest)

    def verdict_in_force(self) -> Verdict | None:
        """The verdict, if it counts: it has a score and a weight, and no user has judged.

        Feedback that could not be judged silences it as well; feedback that was withdrawn does not.
        """
        verdict, decision, result = self.verdict, self.decision, self.result
        if verdict is None or not verdict.weight or verdict.score is None:
            return None
        if decision is None or result is None or any(not item.withdrawn for item in self.feedback):
            return None
        calls = {decision.call_id, result.call_id or decision.call_id}
        return verdict if calls == {verdict.call_id} and verdict.arm == result.arm else None


def _first_decision(known: Decision | None, new: Decision) -> Decision:
    if known is None:
        return new
    old_key, new_key = (
        (event.decided_at, event.query_partition, event.query_offset, event.encode())
        for event in (known, new)
    )
    return new if new_key < old_key else known


def _first_result(known: Result | None, new: Result) -> Result:
    if known is None:
        return new
    old_key, new_key = ((event.finished_at, event.encode()) for event in (known, new))
    return new if new_key < old_key else known


def _last_verdict(known: Verdict | None, new: Verdict) -> Verdict:
    if known is None:
        return new
    old_key, new_key = (
        (event.score is not None, event.finished_at, event.encode()) for event in (known, new)
    )
    return new if new_key > old_key else known


def _given_at(item: Feedback) -> datetime:
    if item.given_at is None:
        raise InvalidEvent("given_at: missing; the reader fills in the record's time")
    return item.given_at


def _age(item: Feedback) -> tuple[datetime, str, bool, bytes]:
    return _given_at(item), item.feedback_id or "", item.withdrawn, item.encode()


def _newest_feedback(known: tuple[Feedback, ...], new: Feedback) -> tuple[Feedback, ...]:
    if not known:
        return (new,) if _given_at(new) else ()
    newest: dict[str | None, Feedback] = {}
    for item in (*known, new):
        held = newest.get(item.feedback_id)
        if held is None or _age(item) > _age(held):
            newest[item.feedback_id] = item
    return tuple(sorted(newest.values(), key=_age)[-MAX_FEEDBACK:])
