"""Where to go on in partitions whose positions brokers have forgotten, as what was written tells.

Brokers forget the positions of a group that had no member for `offsets.retention.minutes`. A group
that begins has none either, and has written nothing.

Invariant: a record counts as done only where what came of it is there to be read; where that may
have been deleted, nobody goes on before somebody has said from where.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from confluent_kafka import Message

from metallm_stream.errors import ConfigurationError, InvalidEvent
from metallm_stream.events import Decision, call_ids_in, query_id_in
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
    read_tails,
    retention,
    wait_settled,
)

TAIL = 100
CLOCKS_MS = 60_000  # by which those of brokers and services may differ, and more

Starts = Mapping[Partition, int]
# A record that may have been done, in few bytes since there may be millions; see `_ids`.
_RECORD = np.dtype([(name, np.int64) for name in ("partition", "offset", "at_ms", "call", "query")])
log = logging.getLogger(__name__)


class _Decided(NamedTuple):
    query_id: str
    query_partition: int
    query_offset: int


def after_decisions(
    connection: Connection, names: TopicNames, group: str, starts: Starts
) -> dict[Partition, Window]:
    """Windows behind the last query of each partition that was decided; `starts` are their first.

    Raises `ConfigurationError` if there may have been decisions on them that were deleted.
    """
    windows: dict[Partition, Window] = {}
    oldest: dict[Partition, int] = {}
    wait_settled(connection, names.decisions)
    deleted = first_offsets(connection, names.decisions)
    partitions = [partition for _, partition in starts]
    tails = read_tails(connection, names.decisions, partitions, TAIL, _decided)
    for key, start in starts.items():
        tail = filter(None, tails[key[1]])
        decided = [item for item in tail if item.query_partition == key[1]]
        if not decided and deleted.get((names.decisions, key[1])):
            first = next(read_from(connection, {key: start}), None)
            oldest |= {} if first is None else {key: first.timestamp()[1]}
        elif decided and _is_there(connection, key, start, decided[-1]):
            windows[key] = Window(decided[-1].query_offset + 1)
    since_ms = _kept_since_ms(connection, names.decisions) if oldest else 0
    if unknown := [key for key, at_ms in oldest.items() if at_ms < since_ms]:
        raise _unknown(group, names.decisions, unknown, since_ms)
    _tell(group, windows)
    return windows


def after_outcomes(
    connection: Connection,
    outcomes: str,
    group: str,
    starts: Starts,
    alive: Callable[[], None] = lambda: None,
) -> dict[Partition, Window]:
    """Windows in which the records are finished whose call has an outcome; `starts` are the first.

    There may be millions to be read; each is a sign of life, for which `alive` is called. Raises
    `ConfigurationError` if others may have had an outcome that was deleted.
    """
    waiting = _read(connection, starts, alive)
    records = np.fromiter(map(_record, waiting), _RECORD)
    if not records.size:
        return {}
    wait_settled(connection, outcomes)
    places = offsets_since(connection, outcomes, int(records["at_ms"].min()) - CLOCKS_MS)
    ended = np.fromiter(map(_ended, _read(connection, places, alive)), np.int64)
    ended = ended[ended != 0]
    is_left = ~(np.isin(records["call"], ended) | np.isin(records["query"], ended))
    _require_kept(connection, group, outcomes, starts, records[is_left])
    windows: dict[Partition, Window] = {}
    for key in starts:
        is_own = records["partition"] == key[1]
        offsets, left = records["offset"][is_own], records["offset"][is_own & is_left]
        if left.size < offsets.size:
            first = int(left[0] if left.size else offsets[-1] + 1)
            done = records["offset"][is_own & ~is_left]
            windows[key] = Window(first, finished=done[done > first].tolist())
    _tell(group, windows)
    return windows


def _read(connection: Connection, starts: Starts, alive: Callable[[], None]) -> Iterator[Message]:
    for message in read_from(connection, starts):
        alive()
        yield message


def _is_there(connection: Connection, key: Partition, start: int, last: _Decided) -> bool:
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
    connection: Connection, group: str, outcomes: str, starts: Starts, left: np.ndarray
) -> None:
    """Raises `ConfigurationError` if outcomes of calls as old as some left are no longer kept."""
    if not any(first_offsets(connection, outcomes).values()):
        return
    since_ms = _kept_since_ms(connection, outcomes)
    calls = left[left["call"] != 0]
    is_old = calls["at_ms"] < since_ms
    numbers = set(calls["partition"][is_old].tolist())
    if unknown := [key for key in starts if key[1] in numbers]:
        # What is younger and left was not done; what stands before the first of it is.
        young = calls["at_ms"][~is_old & np.isin(calls["partition"], list(numbers))]
        raise _unknown(group, outcomes, unknown, young.min(initial=int(time.time() * 1_000)))


def _kept_since_ms(connection: Connection, topic: str) -> int:
    """The time from which on nothing of a topic was deleted."""
    kept_ms, kept_bytes = retention(connection.admin(), topic)
    since_ms = 0 if kept_ms < 0 else int(time.time() * 1_000) - kept_ms
    firsts = first_offsets(connection, topic) if kept_bytes >= 0 else {}
    for key, first in firsts.items():
        oldest = next(read_from(connection, {key: first}), None) if first else None
        since_ms = since_ms if oldest is None else max(since_ms, oldest.timestamp()[1])
    return since_ms


def _unknown(
    group: str, outcomes: str, unknown: Iterable[Partition], at_ms: int
) -> ConfigurationError:
    (topic, *_), numbers = zip(*sorted(unknown), strict=True)
    at = datetime.fromtimestamp(int(at_ms) / 1_000, UTC).isoformat(timespec="milliseconds")
    return ConfigurationError(
        f"brokers have forgotten the positions of group {group!r}, as they do after "
        f"offsets.retention.minutes without a member, and {outcomes!r} no longer tells what "
        f"was done of older records: run `kafka-consumer-groups.sh --reset-offsets --group "
        f"{group} --topic {topic}:{','.join(map(str, numbers))} --to-datetime "
        f"{at.removesuffix('+00:00')} --execute` to leave them out, or the same with --to-earliest "
        "to do all again"
    )


def _tell(group: str, windows: Mapping[Partition, Window]) -> None:
    for (topic, partition), window in windows.items():
        log.error(
            "%s[%d]: brokers have forgotten the position of group %r, as they do after "
            "offsets.retention.minutes without a member; it is %d, as what was done tells",
            *(topic, partition, group, window.next_offset),
        )


def _decided(message: Message) -> _Decided | None:
    """What a decision read back tells of its query's place; None of what is not ours."""
    try:
        decision = Decision.parse(message.value())
    except InvalidEvent:
        return None
    return _Decided(decision.query_id, decision.query_partition, decision.query_offset)


def _record(message: Message) -> tuple[int, int, int, int, int]:
    at_ms = message.timestamp()[1]
    return partition_of(message)[1], offset_of(message), at_ms, *_ids(message)


def _ended(message: Message) -> int:
    """The call that an outcome is of, or its query where older workers wrote no more."""
    call, query = _ids(message)
    return call or query


def _ids(message: Message) -> tuple[int, int]:
    """Call and query of a record, as 64 bits that no two are likely to share; 0: unknown."""
    call, query = call_ids_in(message.value() or b"")
    return 0 if call is None else hash(call), 0 if query is None else hash(("query", query))
