"""What a try is let in with, and what it leaves behind if it never left."""

from __future__ import annotations

import asyncio

import pytest

from metallm_stream.events import Failure
from metallm_stream.providers import Answer, Circuits, Guard, ProviderFailure, Shares, Spending
from metallm_stream.providers.circuit import RETRY_AFTER_S
from metallm_stream.providers.guard import Pass
from metallm_stream.providers.rate_headers import Quota, RateLimits
from tests.unit.test_circuit import MINI, OPENING, WELL, HandClock

HUNG = ProviderFailure("timeout", "by the test", retriable=True)


def guard(clock: HandClock, concurrency: int = 1, shares: Shares | None = None) -> Guard:
    return Guard(Circuits("here", "0", 0.5, clock), shares or Shares(), concurrency, clock)


async def let_in(guard: Guard, patience_s: float = 0.0) -> Pass:
    held = await guard.enter(MINI, tokens=1, patience_s=patience_s)
    assert isinstance(held, Pass)
    return held


def test_probes_that_hang_stand_in_nobodys_way() -> None:
    """One a second is let in, however many lanes are taken; the first answer ends the outage."""

    async def scene() -> None:
        clock = HandClock()
        shared = guard(clock)
        for _ in range(OPENING):
            shared.leave(await let_in(shared), HUNG, None)
        hanging = []
        for second in range(1, 31):
            clock.seconds = second * RETRY_AFTER_S
            hanging.append(await let_in(shared))
        clock.seconds += RETRY_AFTER_S
        shared.leave(await let_in(shared), WELL, None)
        shared.leave(await let_in(shared), WELL, None)
        for held in hanging:
            shared.leave(held, HUNG, None)
        await let_in(shared)
        full = await shared.enter(MINI, tokens=1, patience_s=0)
        assert isinstance(full, Failure)
        assert "1 calls are in flight" in full.message

    asyncio.run(scene())


def test_calls_that_find_no_lane_use_up_no_share() -> None:
    """Neither of the settings' limit nor of the vendor's; also where it tells of its own anew."""

    async def scene() -> None:
        clock, shares = HandClock(), Shares(requests_per_minute=600)
        shared = guard(clock, shares=shares)
        well = Answer("4", limits=RateLimits(requests=Quota(60, 59, 1)))
        shared.leave(await let_in(shared), well, None)
        held = await let_in(shared)
        for _ in range(300):
            clock.seconds += 0.1
            assert isinstance(await shared.enter(MINI, tokens=1, patience_s=0.0), Failure)
        shared.leave(held, well, None)
        clock.seconds += 0.1
        for _ in range(10):
            assert shares.wait_s(MINI.arm, 1, clock.monotonic()) == 0.0
            shared.leave(await let_in(shared), WELL, None)
            clock.seconds += 0.1

    asyncio.run(scene())


def test_calls_that_are_broken_off_while_they_wait_use_up_no_share() -> None:
    """The next one waits no longer for them."""

    async def scene() -> None:
        clock, shares = HandClock(), Shares(requests_per_minute=6)
        shared = guard(clock, shares=shares)
        await let_in(shared)
        before_s = shares.wait_s(MINI.arm, 1, clock.monotonic())
        clock.seconds += before_s
        waiting = asyncio.create_task(let_in(shared, patience_s=30.0))
        await asyncio.sleep(0)
        assert shares.wait_s(MINI.arm, 1, clock.monotonic()) == before_s
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert shares.wait_s(MINI.arm, 1, clock.monotonic()) == 0.0

    asyncio.run(scene())


def test_what_the_spending_cap_bars_uses_up_no_share() -> None:
    """Nor a lane: an arm that is free goes on."""

    async def scene() -> None:
        clock, shares = HandClock(), Shares(requests_per_minute=60)
        spending = Spending("here", "0", 1.0, "hour", clock)
        shared = Guard(Circuits("here", "0", 0.5, clock), shares, 1, clock, spending)
        shared.leave(await let_in(shared), WELL, 1.0)
        clock.seconds += 1.0
        for _ in range(3):
            barred = await shared.enter(MINI, tokens=1, patience_s=0.0)
            assert isinstance(barred, Failure)
            assert barred.kind == "spend_cap"

    asyncio.run(scene())


def test_a_try_that_does_not_begin_leaves_nothing_behind() -> None:
    """Its lane, its share and its place under the spending cap are free again."""

    async def scene() -> None:
        clock = HandClock()
        spending = Spending("here", "0", 1.0, "hour", clock)
        circuits, shares = Circuits("here", "0", 0.5, clock), Shares(requests_per_minute=60)
        shared = Guard(circuits, shares, 1, clock, spending)
        shared.leave(await let_in(shared), WELL, 0.6)
        clock.seconds += 1.0
        for _ in range(3):
            shared.withdraw(await let_in(shared))

    asyncio.run(scene())
