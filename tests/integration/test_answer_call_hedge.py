"""Hedged calls: a second arm is asked when the first takes long, and the first answer counts."""

from __future__ import annotations

import asyncio

import pytest

from metallm_stream.embedded.recorded_llm import Fault
from metallm_stream.events import Result
from metallm_stream.providers import Forward, SystemClock
from tests.vendor_stage import Stage, arm, call_of, kinds

SOON_S = 0.05


def test_a_slow_arm_is_overtaken(stage: Stage) -> None:
    """The second arm's answer counts; the first try is broken off and stands in the attempts."""
    result = stage.answer(
        call_of(arm("a"), arm("b"), arm("c")),
        scripts={"a": [Fault.HANG]},
        hedge_after_s=SOON_S,
        clock=SystemClock(),
    )
    assert isinstance(result, Result)
    assert (result.arm, result.text, result.failure) == ("here/b", "4", None)
    assert kinds(result.attempts) == [("here/b", None), ("here/a", "superseded")]
    broken_off = result.attempts[1]
    assert broken_off.latency_s >= SOON_S
    assert broken_off.cost_usd is None
    assert result.cost_usd == pytest.approx(0.02)


def test_a_quick_arm_is_not_hedged(stage: Stage) -> None:
    """One request, one attempt."""
    result = stage.answer(call_of(arm("a"), arm("b")), hedge_after_s=30)
    assert kinds(result.attempts) == [("here/a", None)]
    assert [request.model for request in stage.seen] == ["a"]


def test_quick_trouble_goes_to_the_next_arm_as_ever(stage: Stage) -> None:
    """And that one can be hedged in turn."""
    result = stage.answer(
        call_of(arm("a"), arm("b"), arm("c")),
        scripts={"a": [Fault.REFUSAL], "b": [Fault.HANG]},
        hedge_after_s=0.5,
        clock=SystemClock(),
    )
    assert kinds(result.attempts) == [
        ("here/a", "refused"),
        ("here/c", None),
        ("here/b", "superseded"),
    ]


def test_the_first_arm_may_still_win(stage: Stage) -> None:
    """Where the second fails, the first one's answer is waited for."""
    result = stage.answer(
        call_of(arm("a"), arm("b")),
        scripts={"a": [Fault.HANG], "b": [Fault.REFUSAL]},
        hedge_after_s=SOON_S,
        attempt_timeout_s=1.0,
        clock=SystemClock(),
        backoff_s=0.01,
    )
    assert isinstance(result, Result)
    assert kinds(result.attempts) == [
        ("here/b", "refused"),
        ("here/a", "timeout"),
        ("here/a", None),
    ]
    assert result.arm == "here/a"


def test_where_both_fail_the_third_is_asked(stage: Stage) -> None:
    """The pair counts as two arms of the ranking."""
    result = stage.answer(
        call_of(arm("a"), arm("b"), arm("c")),
        scripts={"a": [Fault.HANG], "b": [Fault.REFUSAL]},
        hedge_after_s=SOON_S,
        attempt_timeout_s=1.0,
        tries_per_arm=1,
        clock=SystemClock(),
    )
    assert [one.arm for one in result.attempts] == ["here/b", "here/a", "here/c"]


def test_an_arm_elsewhere_is_no_rival(stage: Stage) -> None:
    """Its worker is another one; the call is passed on when the arm here has failed."""
    forward = stage.answer(
        call_of(arm("a"), arm("b", "elsewhere")),
        Fault.HANG,
        hedge_after_s=SOON_S,
        attempt_timeout_s=0.1,
        tries_per_arm=1,
    )
    assert isinstance(forward, Forward)
    assert kinds(forward.call.attempts) == [("here/a", "timeout")]


def test_a_call_that_is_cancelled_leaves_no_try_behind(stage: Stage) -> None:
    """Both tries end with it."""

    async def scene() -> int:
        call = stage.answering(
            call_of(arm("a"), arm("b")),
            *(Fault.HANG, Fault.HANG),
            hedge_after_s=SOON_S,
            clock=SystemClock(),
        )
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 1.0)
        return sum("Tries.ask" in repr(task.get_coro()) for task in asyncio.all_tasks())

    assert stage.runner.run(scene()) == 0
    assert [request.model for request in stage.seen] == ["a", "b"]
