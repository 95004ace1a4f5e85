"""The model computed anew, from the stored interactions or from the log, beside the live one.

Invariant: live model = archive + fold(stored interactions) = fold(log). What is compared is read
in one snapshot, so the comparison holds while the learner goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection as Database
from sqlalchemy import Engine

from metallm_stream.errors import ConfigurationError, InvalidEvent
from metallm_stream.join import Interaction
from metallm_stream.kafka import Connection, TopicNames, read_from_start
from metallm_stream.policy import Sums, merged
from metallm_stream.postgres import (
    ARCHIVE_SLOT,
    fold,
    load_forgetting,
    load_offsets,
    load_slot_sums,
    load_sums,
    snapshot,
    stream_interactions,
)
from metallm_stream.serve.joined import read_joined

BATCH = 100  # rows, which may have a megabyte each


@dataclass(frozen=True)
class Rebuilt:
    """A rebuilt model beside the live one."""

    sums: Sums
    live: Sums
    interactions: int

    @property
    def max_relative_difference(self) -> float:
        """The largest difference of any sum, relative to the largest of its kind."""
        return self.live.difference(self.sums)


def rebuild(engine: Engine, encoder: str, dimensions: int) -> Rebuilt:
    """Fold the stored interactions, and the archive of those that retention has dropped."""
    with snapshot(engine) as conn:
        live = _live(conn, dimensions)
        archive = Sums.from_bytes(load_slot_sums(conn, ARCHIVE_SLOT), dimensions)
        counted = _Counted(stream_interactions(conn, BATCH))
        folded = fold(counted, encoder, dimensions, load_forgetting(conn))
    return Rebuilt(merged([archive, folded], dimensions), live, counted.count)


def rebuild_from_log(
    engine: Engine, connection: Connection, names: TopicNames, encoder: str, dimensions: int
) -> Rebuilt:
    """Fold the topics from their beginning up to where the learner has read.

    Raises `ConfigurationError` if the topics no longer reach back to their first record.
    """
    with snapshot(engine) as conn:
        live = _live(conn, dimensions)
        offsets = load_offsets(conn)
        forgetting = load_forgetting(conn)
    joined = read_log(connection, names, offsets, encoder, dimensions)
    return Rebuilt(fold(joined.values(), encoder, dimensions, forgetting), live, len(joined))


def read_log(
    connection: Connection,
    names: TopicNames,
    offsets: Mapping[tuple[str, int], int],
    encoder: str,
    dimensions: int,
) -> dict[str, Interaction]:
    """The interactions by query that the topics tell up to these offsets.

    Raises `ConfigurationError` if they are those of other topics, or the log does not begin at 0.
    """
    read = sorted({topic for topic, _ in offsets})
    if read and not set(read) & set(names.joined):
        raise ConfigurationError(
            f"this database has learned from {', '.join(read)}, and METALLM_TOPICS__PREFIX"
            f"={names.prefix} names others: set the prefix, or DATABASE_URL, that belong together"
        )
    joined: dict[str, Interaction] = {}
    for topic in names.joined:
        ends = {part: end for (name, part), end in offsets.items() if name == topic}
        for message in read_from_start(connection, topic, ends):
            try:
                event = read_joined(message, names, encoder, dimensions)
            except InvalidEvent:
                continue  # the learner has dead-lettered it
            known = joined.get(event.query_id) or Interaction(event.query_id)
            joined[event.query_id] = known.merged(event)
    return joined


class _Counted:
    def __init__(self, source: Iterable[Interaction]) -> None:
        self._source = source
        self.count = 0

    def __iter__(self) -> Iterator[Interaction]:
        for item in self._source:
            self.count += 1
            yield item


def _live(conn: Database, dimensions: int) -> Sums:
    slots = load_sums(conn).values()
    return merged([Sums.from_bytes(raw, dimensions) for raw in slots], dimensions)
