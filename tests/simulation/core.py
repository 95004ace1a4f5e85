"""The pure core as the simulated services call it, in one place.

Invariant: nothing of it is simulated. A test plants a bug by handing the world a subclass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from metallm_stream.events import Decision, Feedback, Result
from metallm_stream.join import Interaction, change
from metallm_stream.kafka import Window
from metallm_stream.policy import Forgetting, Sums
from metallm_stream.route import Budget, Pacer

ENCODER = "simulated"
DIMENSIONS = 2
Joined = Decision | Result | Feedback
Pair = tuple[Interaction | None, Interaction]


class Violation(AssertionError):
    """A promise that a history has broken."""


class Core:
    """Join, sums, window and budgets."""

    def joined(self, known: Interaction, event: Joined) -> Interaction:
        """An interaction with one more event."""
        return known.merged(event)

    def change(self, pairs: Iterable[Pair], forgetting: Forgetting) -> Sums:
        """The change of the sums."""
        return change(pairs, ENCODER, DIMENSIONS, forgetting)

    def window(self, next_offset: int, metadata: str) -> Window:
        """The records of one partition in work and done."""
        return Window(next_offset, metadata)

    def pacer(self, budgets: Sequence[Budget]) -> Pacer:
        """The budgets of one router."""
        return Pacer(budgets)

    def may_advance(self, held: tuple[int, int], stored: tuple[int, int]) -> bool:
        """Whether a learner that holds (epoch, next offset) may move what is stored."""
        return held == stored
