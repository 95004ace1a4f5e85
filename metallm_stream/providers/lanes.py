"""How many calls of one arm are in flight: fewer when the vendor says that it is too much.

Invariant: never more than the limit, which lies between 1 and the setting; who waits longest goes
next, and who gives up takes nobody's place.
"""

from __future__ import annotations

import asyncio
from collections import deque

from metallm_stream.providers.clock import Clock

MEMORY_CALLS = 20
TROUBLE_SHARE = 0.1  # three calls in a row, or one of ten for long


class Lanes:
    """An adaptive number of lanes for the calls of one arm.

    Additive increase, multiplicative decrease: a full set of answers opens one lane more, and
    trouble halves them, once for all the calls that were in flight when it came. Trouble is a share
    of recent calls, as single calls that hang would close nearly all lanes of an arm that is fine.

    Parameters
    ----------
    most
        Lanes at the start, and at most.
    clock
        Time.

    References
    ----------
    Chiu and Jain (1989), "Analysis of the increase and decrease algorithms for congestion
    avoidance in computer networks".
    """

    def __init__(self, most: int, clock: Clock) -> None:
        self.limit = float(most)
        self._most = most
        self._clock = clock
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._cut_s = float("-inf")
        self._share = 0.0

    async def enter(self, patience_s: float) -> bool:
        """Take a lane; False if none is free within `patience_s`."""
        if self._busy < int(self.limit) and not self._waiting:
            self._busy += 1
            return True
        if patience_s <= 0:
            return False
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(patience_s):
                await turn
        except BaseException as exc:
            self._give_up(turn)
            if isinstance(exc, TimeoutError):
                return False
            raise
        return True

    def leave(self, *, began_s: float, answered: bool, overloaded: bool) -> None:
        """Give the lane of a call back that began at `began_s` of the clock."""
        if began_s >= self._cut_s:
            self._share += (overloaded - self._share) / MEMORY_CALLS
        if self._share >= TROUBLE_SHARE:
            self._cut_s, self._share = self._clock.monotonic(), 0.0
            self.limit = max(1.0, self.limit / 2)
        elif answered and 2 * self._busy >= self.limit:
            self.limit = min(float(self._most), self.limit + 1 / self.limit)
        self._busy -= 1
        self._let_in()

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():
            self._busy -= 1  # its turn had just come
            self._let_in()
        elif turn in self._waiting:
            self._waiting.remove(turn)

    def _let_in(self) -> None:
        while self._waiting and self._busy < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.done():
                self._busy += 1
                turn.set_result(None)
