"""What a try is let in with, and what it leaves behind if it never left."""

from __future__ import annotations

import asyncio

from metallm_stream.events import Failure
from metallm_stream.providers import Circuits, Guard, ProviderFailure, Shares
from metallm_stream.providers.circuit import FEWEST, RETRY_AFTER_S
from metallm_stream.providers.guard import Pass
from tests.unit.test_circuit import MINI, WELL, HandClock

HUNG = ProviderFailure("timeout", "by the test", retriable=True)


def guard(clock: HandClock, concurrency: int = 1, shares: Shares | None = None) -> Guard:
    return Guard(Circuits("here", "0", 0.5, clock), shares or Shares(), concurrency, clock)


async def let_in(guard: Guard, patience_s: float = 0.0) -> Pass:
    held = await guard.enter(MINI, tokens=1, patience_s=patience_s)
    assert isinstance(held, Pass)
    return held


def test_probes_that_hang_stand_in_nobodys_way() -> None:
    """Each second one is let in, however many lanes are taken; the first answer ends the outage."""

    async def scene() -> None:
        clock = HandClock()
        shared = guard(clock)
        for _ in range(FEWEST):
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
