"""How many calls of an arm are in flight, and who waits."""

from __future__ import annotations

import asyncio

from metallm_stream.providers import SystemClock
from metallm_stream.providers.lanes import Lanes


async def trouble(lanes: Lanes, times: int = 3) -> None:
    """Calls in a row that are too much for the vendor."""
    for _ in range(times):
        assert await lanes.enter(0)
        lanes.leave(began_s=float("inf"), answered=False, overloaded=True)


def well(lanes: Lanes) -> None:
    lanes.leave(began_s=0.0, answered=True, overloaded=False)


def test_trouble_halves_the_lanes_down_to_one() -> None:
    """And never below, so that the end of the trouble is noticed."""

    async def scene() -> None:
        lanes = Lanes(8, SystemClock())
        for expected in (4, 2, 1, 1):
            await trouble(lanes)
            assert lanes.limit == expected

    asyncio.run(scene())


def test_single_calls_that_hang_close_no_lanes() -> None:
    """One of thirty is no sign of too many calls."""

    async def scene() -> None:
        lanes = Lanes(8, SystemClock())
        for _ in range(20):
            await trouble(lanes, times=1)
            for _ in range(29):
                assert await lanes.enter(0)
                well(lanes)
        assert lanes.limit == 8

    asyncio.run(scene())


def test_calls_that_were_in_flight_together_halve_once() -> None:
    """Eight refusals of one moment are one sign."""

    async def scene() -> None:
        clock = SystemClock()
        lanes, began_s = Lanes(8, clock), clock.monotonic()
        for _ in range(8):
            assert await lanes.enter(0)
        for _ in range(8):
            lanes.leave(began_s=began_s, answered=False, overloaded=True)
        assert lanes.limit == 4

    asyncio.run(scene())


def test_answers_open_lanes_again_up_to_the_setting() -> None:
    """One more for each full set of answers, if the lanes are used."""

    async def scene() -> None:
        lanes = Lanes(4, SystemClock())
        await trouble(lanes)
        for _ in range(40):
            while await lanes.enter(0):
                pass
            well(lanes)
        assert lanes.limit == 4

    asyncio.run(scene())


def test_lanes_that_are_not_used_do_not_open() -> None:
    """One call at a time says nothing of how many would be borne."""

    async def scene() -> None:
        lanes = Lanes(64, SystemClock())
        await trouble(lanes)
        for _ in range(100):
            assert await lanes.enter(0)
            well(lanes)
        assert lanes.limit == 32

    asyncio.run(scene())


def test_who_waits_longest_goes_next() -> None:
    """In the order of arrival; whoever has no patience left does without."""

    async def scene() -> None:
        lanes, order = Lanes(1, SystemClock()), []
        assert await lanes.enter(0)

        async def wait(name: str, patience_s: float) -> None:
            order.append((name, await lanes.enter(patience_s)))

        impatient = asyncio.create_task(wait("impatient", 0.001))
        first, second = (asyncio.create_task(wait(name, 30)) for name in ("first", "second"))
        gone = asyncio.create_task(wait("gone", 30))
        await impatient
        gone.cancel()
        well(lanes)
        await first
        assert not second.done()
        well(lanes)
        await second
        assert order == [("impatient", False), ("first", True), ("second", True)]
        assert not await lanes.enter(0)
        well(lanes)
        assert await lanes.enter(0)

    asyncio.run(scene())
