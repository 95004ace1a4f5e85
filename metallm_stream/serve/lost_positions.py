"""Where to go on in partitions whose positions brokers have forgotten, as what was written tells.

Brokers forget the positions of a group that had no member for `offsets.retention.minutes`. A group
that begins has none either, and has written nothing.

Invariant: a record counts as done only where what came of it is there to be read; where that may
have been deleted, nobody goes on before somebody has said from where.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from confluent_kafka import Message

from metallm_stream.errors import ConfigurationError, InvalidEvent
from metallm_stream.events import Decision, call_id_in, query_id_in
from metallm_stream.kafka import (
    Connection,
    Partition,
    TopicNames,
    Window,
    first_offsets,
    offset_of,
    offsets_since,
    partition_of,
    read_from,
    read_tail,
    retention_ms,
)

TAIL = 100
CLOCKS_MS = 60_000  # by which those of brokers and services may differ, and more

Starts = Mapping[Partition, int]
log = logging.getLogger(__name__)


class _Record(NamedTuple):
    """A record that may have been done: where it stands, when it was written, and its call."""

    partition: Partition
    offset: int
    at_ms: int
    call_id: str | None


def after_decisions(
    connection: Connection, names: TopicNames, group: str, starts: Starts
) -> dict[Partition, Window]:
    """Windows behind the last query of each partition that was decided; `starts` are their first.

    Raises `ConfigurationError` if there may have been decisions on them that were deleted.
    """
    windows: dict[Partition, Window] = {}
    oldest: dict[Partition, int] = {}
    deleted = first_offsets(connection, names.decisions)
    for key, start in starts.items():
        tail = read_tail(connection, names.decisions, key[1], TAIL, _decision)
        decided = [item for item in tail if item is not None and item.query_partition == key[1]]
        if not decided and deleted.get((names.decisions, key[1])):
            first = next(read_from(connection, {key: start}), None)
            oldest |= {} if first is None else {key: first.timestamp()[1]}
        elif decided and _is_there(connection, key, start, decided[-1]):
            windows[key] = Window(decided[-1].query_offset + 1)
    if oldest:
        _require_kept(connection, group, names.decisions, oldest)
    _tell(group, windows)
    return windows


def after_outcomes(
    connection: Connection, outcomes: str, group: str, starts: Starts
) -> dict[Partition, Window]:
    """Windows in which the records are finished whose call has an outcome; `starts` are the first.

    Raises `ConfigurationError` if others may have had an outcome that was deleted.
    """
    records = [
        _Record(partition_of(item), offset_of(item), item.timestamp()[1], _call_id(item))
        for item in read_from(connection, starts)
    ]
    if not records:
        return {}
    since_ms = min(item.at_ms for item in records) - CLOCKS_MS
    wanted = {item.call_id for item in records if item.call_id is not None}
    places = offsets_since(connection, outcomes, since_ms)
    ended = {found for item in read_from(connection, places) if (found := _call_id(item)) in wanted}
    windows: dict[Partition, Window] = {}
    oldest: dict[Partition, int] = {}
    for key in starts:
        own = [item for item in records if item.partition == key]
        left = [item for item in own if item.call_id not in ended]
        oldest |= {key: min(item.at_ms for item in left)} if left else {}
        if len(left) < len(own):
            first = left[0].offset if left else own[-1].offset + 1
            above = {item.offset for item in own if item.offset > first} - {x.offset for x in left}
            windows[key] = Window(first, finished=above)
    if any(first_offsets(connection, outcomes).values()):
        _require_kept(connection, group, outcomes, oldest)
    _tell(group, windows)
    return windows


def _is_there(connection: Connection, key: Partition, start: int, last: Decision) -> bool:
    """Whether the query of a decision still stands where it stood: the topic is the same."""
    if last.query_offset < start:
        return False
    found = next(read_from(connection, {key: last.query_offset}), None)
    return (
        found is not None
        and offset_of(found) == last.query_offset
        and query_id_in(found.value() or b"") == last.query_id
    )


def _require_kept(
    connection: Connection, group: str, outcomes: str, oldest: Mapping[Partition, int]
) -> None:
    """Raises `ConfigurationError` if outcomes of records as old as these are no longer kept."""
    kept = retention_ms(connection.admin(), outcomes)
    since_ms = 0 if kept < 0 else time.time() * 1_000 - kept
    unknown = sorted(key for key, at_ms in oldest.items() if at_ms < since_ms)
    if unknown:
        since = datetime.fromtimestamp(since_ms / 1_000 + 1, UTC)
        numbers = ",".join(str(partition) for _, partition in unknown)
        raise ConfigurationError(
            f"brokers have forgotten the positions of group {group!r}, as they do after "
            f"offsets.retention.minutes without a member, and {outcomes!r} no longer tells what "
            f"was done of older records: run `kafka-consumer-groups.sh --reset-offsets --group "
            f"{group} --topic {unknown[0][0]}:{numbers} --to-datetime {since:%Y-%m-%dT%H:%M:%S.000}"
            " --execute` to leave them out, or the same with --to-earliest to do all again"
        )


def _tell(group: str, windows: Mapping[Partition, Window]) -> None:
    for (topic, partition), window in windows.items():
        log.error(
            "%s[%d]: brokers have forgotten the position of group %r, as they do after "
            "offsets.retention.minutes without a member; going on at %d, as what was done tells",
            *(topic, partition, group, window.next_offset),
        )


def _decision(message: Message) -> Decision | None:
    try:
        return Decision.parse(message.value())
    except InvalidEvent:
        return None


def _call_id(message: Message) -> str | None:
    return call_id_in(message.value() or b"")
