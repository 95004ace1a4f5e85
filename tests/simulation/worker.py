"""A simulated worker: calls that end in any order, well or not, over a simulated loop."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from metallm_stream.events import Attempt, Failure, Result
from metallm_stream.kafka import Window
from metallm_stream.route import Decided
from tests.simulation.broker import Entry, Place
from tests.simulation.dice import Dice
from tests.simulation.member import Member

if TYPE_CHECKING:
    from tests.simulation.world import World

GROUP = "worker"
TIMEOUT = Failure(kind="timeout", message="no answer within 60 s")
COSTS_USD = (0.0, 0.0004, 0.003, None, 0.25)
AT_MOST_USD = 0.02


class Worker:
    """One process in one slot."""

    def __init__(self, world: World, slot: int) -> None:
        self._world = world
        self._in_flight: list[tuple[Place, Window, Entry]] = []
        self.member = Member(
            world.broker, world.core, GROUP, slot, adopted=lambda _: None, dropped=self._cancel
        )

    def begin(self, dice: Dice) -> None:
        """Take calls into work."""
        self._in_flight += self.member.take(1 + dice.below(4))

    def step(self, dice: Dice) -> None:
        """Take calls, let some end in any order, and try to commit what has ended."""
        if dice.once_in(2):
            self.begin(dice)
        for _ in range(min(dice.below(4), len(self._in_flight))):
            self._end(self._in_flight.pop(dice.below(len(self._in_flight))), dice)
        if not dice.once_in(3):
            self.member.commit(fails=dice.once_in(8))

    def drain(self) -> None:
        """Answer everything that there is."""
        self._in_flight += self.member.take(1_000)
        while self._in_flight:
            self._end(self._in_flight.pop(), Dice(0))
        self.member.commit()

    def _end(self, call: tuple[Place, Window, Entry], dice: Dice) -> None:
        place, window, entry = call
        result = self._answered(entry.event, dice)
        partition = dice.below(2)
        self.member.complete(place, window, entry.offset, [(("results", partition), result)])

    def _answered(self, call: Decided, dice: Dice) -> Result:
        cost_usd, prediction = COSTS_USD[dice.below(len(COSTS_USD))], ("yes", "no")[dice.below(2)]
        failed = dice.once_in(5)
        attempt = Attempt(
            arm=call.ranking[0].arm,
            started_at=self._world.now,
            latency_s=1.0,
            cost_usd=cost_usd,
            at_most_usd=AT_MOST_USD if cost_usd is None else None,
            failure=TIMEOUT if failed else None,
        )
        return Result(
            query_id=call.decision.query_id,
            call_id=call.decision.call_id,
            arm=None if failed else attempt.arm,
            prediction=None if failed else prediction,
            failure=attempt.failure,
            attempts=(attempt,),
            cost_usd=cost_usd or 0.0,
            finished_at=self._world.now + timedelta(seconds=1),
        )

    def _cancel(self, place: Place) -> None:
        self._in_flight = [call for call in self._in_flight if call[0] != place]
