"""Calls and the health of arms: who is passed over, and who is asked all the same."""

from __future__ import annotations

from metallm_stream.embedded.recorded_llm import Fault
from metallm_stream.events import Model, Result, Skip
from metallm_stream.providers import Circuits, Forward, Guard, Shares
from metallm_stream.providers.circuit import RETRY_AFTER_S
from tests.vendor_stage import FrozenClock, Stage, arm, call_of, kinds


def new_guard() -> Guard:
    """A guard without limits, for which no time passes."""
    clock = FrozenClock()
    return Guard(Circuits("here", "0", 0.5, clock), Shares(), 64, clock)


def opened(stage: Stage, *names: str) -> Guard:
    """A guard that has seen these arms fail."""
    guard = new_guard()
    for name in names:
        for _ in range(2):
            call = call_of(arm(name))
            stage.answer(call, *[Fault.SERVER_ERROR] * 3, guard=guard)
    return guard


def why(skipped: tuple[Skip, ...]) -> list[tuple[str, str]]:
    return [(one.arm, one.reason.kind) for one in skipped]


def windowed(name: str, tokens: int | None, provider: str = "here") -> Model:
    return arm(name, provider).model_copy(update={"context_window_tokens": tokens})


def test_an_arm_with_an_open_circuit_is_passed_over(stage: Stage) -> None:
    """The next one answers at once, and the result says who was skipped and why."""
    guard = opened(stage, "a")
    result = stage.answer(call_of(arm("a"), arm("b")), guard=guard)
    assert isinstance(result, Result)
    assert (result.arm, kinds(result.attempts)) == ("here/b", [("here/b", None)])
    assert why(result.skipped) == [("here/a", "circuit_open")]
    assert "server_error" in result.skipped[0].reason.message


def test_retries_end_when_the_circuit_opens(stage: Stage) -> None:
    """The sixth failure in a row is not awaited."""
    guard = new_guard()
    faults = [Fault.SERVER_ERROR] * 8
    result = stage.answer(call_of(arm("a"), arm("b")), *faults, guard=guard, tries_per_arm=8)
    assert [one.arm for one in result.attempts] == ["here/a"] * 5 + ["here/b"] * 3
    assert why(result.skipped) == [("here/a", "circuit_open")]


def test_if_all_are_down_one_is_tried_once(stage: Stage) -> None:
    """Better a try than a failure that is sure; its answer counts."""
    guard = opened(stage, "a", "b")
    call = call_of(arm("a"), arm("b"))
    failed = stage.answer(call, *[Fault.SERVER_ERROR] * 3, guard=guard)
    assert isinstance(failed, Result)
    assert why(failed.skipped) == [("here/a", "circuit_open"), ("here/b", "circuit_open")]
    assert kinds(failed.attempts) == [("here/a", "server_error")]
    assert [one.probe for one in failed.attempts] == [True]
    assert failed.failure is not None
    assert failed.failure.kind == "server_error"
    answered = stage.answer(call, guard=guard)
    assert isinstance(answered, Result)
    assert answered.arm == "here/a"


def test_tries_through_an_open_circuit_are_marked_as_probes(stage: Stage) -> None:
    """Those that opened it are not, nor what comes after the answer that closes it."""
    clock = FrozenClock()
    guard = Guard(Circuits("here", "0", 0.5, clock), Shares(), 64, clock)
    faults = [Fault.SERVER_ERROR] * 5
    down = stage.answer(call_of(arm("a")), *faults, guard=guard, tries_per_arm=5)
    clock.waits_s.append(RETRY_AFTER_S)
    up = [stage.answer(call_of(arm("a")), guard=guard) for _ in range(2)]
    attempts = [one for result in (down, *up) for one in result.attempts]
    assert [one.probe for one in attempts] == [None] * 5 + [True, None]


def test_a_forward_keeps_what_was_passed_over(stage: Stage) -> None:
    """The next worker's result has it."""
    forward = stage.answer(call_of(arm("a"), arm("b", "elsewhere")), guard=opened(stage, "a"))
    assert isinstance(forward, Forward)
    assert why(forward.call.skipped) == [("here/a", "circuit_open")]
    result = stage.answer(forward.call.model_copy(update={"ranking": (arm("c"),)}))
    assert isinstance(result, Result)
    assert (result.arm, why(result.skipped)) == ("here/c", [("here/a", "circuit_open")])


def test_what_some_arms_call_malformed_another_answers(stage: Stage) -> None:
    """They may be set up wrongly, or their vendor stricter than others."""
    malformed = [Fault.BAD_REQUEST] * 2
    result = stage.answer(call_of(arm("a"), arm("b"), arm("c")), *malformed)
    assert kinds(result.attempts) == [
        ("here/a", "bad_request"),
        ("here/b", "bad_request"),
        ("here/c", None),
    ]


def test_what_all_arms_call_malformed_fails_as_such(stage: Stage) -> None:
    """Here and elsewhere, once at each."""
    forward = stage.answer(call_of(arm("a"), arm("b", "elsewhere")), Fault.BAD_REQUEST)
    assert isinstance(forward, Forward)
    call = forward.call.model_copy(update={"ranking": (arm("b"), arm("c"))})
    result = stage.answer(call, Fault.BAD_REQUEST, Fault.BAD_REQUEST)
    assert isinstance(result, Result)
    assert kinds(result.attempts) == [(f"here/{name}", "bad_request") for name in "abc"]
    assert result.failure is not None
    assert result.failure.kind == "bad_request"


def test_a_prompt_that_is_too_long_goes_to_a_larger_window(stage: Stage) -> None:
    """Arms whose window is no larger are passed over; one of unknown window is asked."""
    ranking = [windowed("a", 8_000), windowed("b", 4_000), windowed("c", 16_000)]
    result = stage.answer(call_of(*ranking), Fault.CONTEXT_TOO_LONG)
    assert isinstance(result, Result)
    assert kinds(result.attempts) == [("here/a", "context_too_long"), ("here/c", None)]
    assert why(result.skipped) == [("here/b", "context_too_long")]
    unknown = stage.answer(call_of(ranking[0], windowed("d", None)), Fault.CONTEXT_TOO_LONG)
    assert isinstance(unknown, Result)
    assert unknown.arm == "here/d"


def test_no_larger_window_is_a_prompt_that_is_too_long(stage: Stage) -> None:
    """Also where the others are elsewhere: nobody is sent what cannot fit."""
    call = call_of(windowed("a", 8_000), windowed("b", 8_000, "elsewhere"))
    result = stage.answer(call, Fault.CONTEXT_TOO_LONG)
    assert isinstance(result, Result)
    assert result.failure is not None
    assert result.failure.kind == "context_too_long"


def test_a_forward_leaves_out_windows_that_are_too_small(stage: Stage) -> None:
    """So that the next worker need not learn it again; the result says why they were not asked."""
    call = call_of(
        windowed("a", 8_000), windowed("b", 9_000, "elsewhere"), windowed("c", 8_000, "elsewhere")
    )
    forward = stage.answer(call, Fault.CONTEXT_TOO_LONG)
    assert isinstance(forward, Forward)
    assert [one.arm for one in forward.call.ranking] == ["elsewhere/b"]
    assert why(forward.call.skipped) == [("elsewhere/c", "context_too_long")]
