"""The loop of `kafka/exactly_once.py`, without Kafka: a group member and its transactions.

Invariant: it hands out exactly the records that are not done, whoever did them, as long as it is
who the broker takes it for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from metallm_stream.kafka import Window
from tests.simulation.broker import AbortedError, Broker, Entry, Identity, Outcome, Place
from tests.simulation.core import Core, Violation


class Member:
    """One process of a group; `adopted` and `dropped` hear of partitions that come and go."""

    def __init__(
        self,
        broker: Broker,
        core: Core,
        group: str,
        slot: int,
        adopted: Callable[[Place], None],
        dropped: Callable[[Place], None],
    ) -> None:
        self._broker, self._core = broker, core
        self.group, self.slot = group, slot
        self._adopted, self._dropped = adopted, dropped
        self._epoch = broker.begin(group, slot)
        self._generation = -1
        self.windows: dict[Place, Window] = {}
        self._read: dict[Place, int] = {}
        self._pending: dict[Place, list[Outcome]] = {}
        self.settle()

    @property
    def is_current(self) -> bool:
        """Whether the broker takes this process for the owner of what it owns."""
        return self._broker.is_current(self._identity)

    @property
    def _identity(self) -> Identity:
        return Identity(self.group, self.slot, self._epoch, self._generation)

    def settle(self) -> None:
        """Hear of the group's assignment: drop what others own now, restore what is new."""
        group = self._broker.groups[self.group]
        was_expelled = group.generation > self._generation + 1
        self._generation = group.generation
        owned = {place for place, slot in group.owners.items() if slot == self.slot}
        for place in list(self.windows) if was_expelled else set(self.windows) - owned:
            self.drop(place)
        for place in sorted(owned - set(self.windows)):
            offset, metadata = self._broker.committed.get((self.group, place), (0, ""))
            self.windows[place] = self._core.window(offset, metadata)
            self._read[place] = offset
            self._adopted(place)

    def drop(self, place: Place) -> None:
        """Lose a partition, and what was done for it but not committed."""
        del self.windows[place], self._read[place]
        self._pending.pop(place, None)
        self._dropped(place)

    def take(self, limit: int) -> list[tuple[Place, Window, Entry]]:
        """The next records of each partition that are not done."""
        taken = []
        for place, window in self.windows.items():
            for entry in self._broker.logs[place].since(self._read[place], limit):
                self._read[place] = entry.offset + 1
                is_new = window.begin(entry.offset)
                is_done = entry.offset in self._broker.done[self.group, place]
                if self.is_current and is_new is is_done:
                    raise Violation(f"{place}@{entry.offset}: handed out {is_new}, done {is_done}")
                if is_new:
                    taken.append((place, window, entry))
                else:
                    self._pending.setdefault(place, [])
        return taken

    def complete(
        self, place: Place, window: Window, offset: int, outputs: Sequence[tuple[Place, Any]]
    ) -> None:
        """Keep an outcome for the next commit, unless the partition was lost meanwhile."""
        if self.windows.get(place) is window:
            window.finish(offset)
            self._pending.setdefault(place, []).append(Outcome(place, offset, outputs))

    def commit(self, *, fails: bool = False) -> bool:
        """Commit what is done; False where that was aborted and the group was settled for it."""
        if not self._pending:
            return True
        offsets = {
            place: (self.windows[place].next_offset, self.windows[place].encode())
            for place in self._pending
        }
        outcomes = [outcome for pending in self._pending.values() for outcome in pending]
        try:
            self._broker.transact(self._identity, outcomes, offsets, fails=fails)
        except AbortedError:
            self.settle()
            return False
        self._pending.clear()
        return True
