"""Calls that share rate limits: they wait within their patience, or go to the next arm."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from metallm_stream.embedded.recorded_llm import Fault
from metallm_stream.events import Result
from metallm_stream.providers import Circuits, Guard, Shares
from tests.vendor_stage import FrozenClock, Stage, arm, call_of, kinds


def guard(clock: FrozenClock, requests_per_minute: float | None = None) -> Guard:
    return Guard(Circuits("here", "0", 0.5, clock), Shares(requests_per_minute), 64, clock)


def test_a_call_waits_for_its_share(stage: Stage) -> None:
    """Twenty calls at 60 a minute take 19 seconds, each asked once."""
    clock = FrozenClock()
    shared = guard(clock, 60)
    for _ in range(20):
        result = stage.answer(call_of(arm("a"), arm("b")), clock=clock, guard=shared)
        assert kinds(result.attempts) == [("here/a", None)]
    assert sum(clock.waits_s) == pytest.approx(19, abs=0.1)


def test_a_wait_beyond_the_deadline_goes_to_the_next_arm(stage: Stage) -> None:
    """Retry-After of 2.5 s is not waited for by a query that has two, and nobody asks meanwhile."""
    clock = FrozenClock()
    shared = guard(clock)
    soon = clock.now() + timedelta(seconds=2)
    for faults in ([Fault.RATE_LIMITED], []):
        call = call_of(arm("a"), arm("b"), deadline_at=soon)
        result = stage.answer(call, *faults, clock=clock, guard=shared)
        assert isinstance(result, Result)
        assert result.arm == "here/b"
    assert [(one.arm, one.reason.kind) for one in result.skipped] == [("here/a", "rate_limited")]
    assert "no share for 2.5 s" in result.skipped[0].reason.message
    assert clock.waits_s == []


def test_no_share_at_any_arm_is_a_failure_that_says_so(stage: Stage) -> None:
    """Without an attempt."""
    clock = FrozenClock()
    shared = guard(clock, 6)
    soon = clock.now() + timedelta(seconds=5)
    calls = [call_of(arm("a"), deadline_at=soon) for _ in range(2)]
    _, result = (stage.answer(call, clock=clock, guard=shared) for call in calls)
    assert isinstance(result, Result)
    assert result.attempts == ()
    assert result.failure is not None
    assert result.failure.kind == "rate_limited"


def test_the_last_arm_is_waited_for_longer(stage: Stage) -> None:
    """`share_wait_s` bounds the wait only where another arm can be asked."""
    for ranking, expected in (((arm("a"), arm("b")), "here/b"), ((arm("a"),), "here/a")):
        clock = FrozenClock()
        shared = guard(clock)
        for faults in ([Fault.RATE_LIMITED], itertools.repeat(None, 1)):
            result = stage.answer(
                call_of(*ranking),
                *faults,
                clock=clock,
                guard=shared,
                share_wait_s=1.0,
                tries_per_arm=1,
            )
        assert isinstance(result, Result)
        assert result.arm == expected
