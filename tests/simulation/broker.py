"""A broker in memory: logs with gaps, transactions, groups, and the promises that it can check.

Invariant, checked with every commit: a record is done once, by whoever owns it; no offset is
committed while a record below it is not done; committed offsets never go back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.core import Violation

PARTITIONS = 2
Place = tuple[str, int]


class FencedError(Exception):
    """Somebody else has the transactional id, or the partition."""


class AbortedError(Exception):
    """The transaction was aborted; it may be tried again once the group is settled."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record in a log; `ours` if a service wrote it in a transaction."""

    offset: int
    event: Any
    ours: bool


@dataclass
class Log:
    """One partition."""

    entries: list[Entry] = field(default_factory=list)
    end: int = 0

    def append(self, event: Any, *, ours: bool) -> None:
        """Add a record."""
        self.entries.append(Entry(self.end, event, ours))
        self.end += 1

    def since(self, offset: int, limit: int) -> list[Entry]:
        """Up to `limit` records from an offset on."""
        return [entry for entry in self.entries if entry.offset >= offset][:limit]


@dataclass
class Group:
    """Who owns which partition, as of a generation."""

    owners: dict[Place, int]
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one record: the records that it gave rise to, and where they go."""

    place: Place
    offset: int
    outputs: Sequence[tuple[Place, Any]]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who writes: a slot of a group, the epoch of its transactional id, and its generation."""

    group: str
    slot: int
    epoch: int
    generation: int


class Broker:
    """Topics, groups, and transactional ids."""

    def __init__(self, groups: Mapping[str, str], slots: int) -> None:
        self.logs: dict[Place, Log] = defaultdict(Log)
        self.groups = {
            group: Group({(topic, part): part % slots for part in range(PARTITIONS)})
            for group, topic in groups.items()
        }
        self.committed: dict[tuple[str, Place], tuple[int, str]] = {}
        self.done: dict[tuple[str, Place], set[int]] = defaultdict(set)
        self._epochs: dict[tuple[str, int], int] = defaultdict(int)

    def write(self, place: Place, event: Any) -> None:
        """A user's record, or a copy of one of ours."""
        self.logs[place].append(event, ours=False)

    def begin(self, group: str, slot: int) -> int:
        """Fence whoever had the transactional id; returns the new epoch."""
        self._epochs[group, slot] += 1
        return self._epochs[group, slot]

    def is_current(self, who: Identity) -> bool:
        """Whether nobody has fenced this process and it knows of the newest assignment."""
        generation = self.groups[who.group].generation
        return self._epochs[who.group, who.slot] == who.epoch and generation == who.generation

    def transact(
        self,
        who: Identity,
        outcomes: Sequence[Outcome],
        offsets: Mapping[Place, tuple[int, str]],
        *,
        fails: bool,
    ) -> None:
        """Outcomes and offsets, or neither; markers leave gaps in the logs either way."""
        if self._epochs[who.group, who.slot] != who.epoch:
            raise FencedError
        touched = {place for outcome in outcomes for place, _ in outcome.outputs}
        if fails or who.generation != self.groups[who.group].generation:
            for place in touched:
                self.logs[place].end += 2
            raise AbortedError
        for outcome in outcomes:
            done = self.done[who.group, outcome.place]
            if outcome.offset in done:
                raise Violation(f"{outcome.place}@{outcome.offset} was done twice")
            done.add(outcome.offset)
            for place, event in outcome.outputs:
                self.logs[place].append(event, ours=True)
        for place in touched:
            self.logs[place].end += 1
        for place, committed in offsets.items():
            self._commit(who.group, place, committed)

    def _commit(self, group: str, place: Place, committed: tuple[int, str]) -> None:
        before = self.committed.get((group, place), (0, ""))[0]
        if committed[0] < before:
            raise Violation(f"{place}: offset {committed[0]} committed after {before}")
        done = self.done[group, place]
        for entry in self.logs[place].entries:
            if entry.offset < committed[0] and entry.offset not in done:
                raise Violation(
                    f"{place}: offset {committed[0]} committed, {entry.offset} is not done"
                )
        self.committed[group, place] = committed
