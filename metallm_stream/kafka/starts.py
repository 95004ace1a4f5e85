"""Where a member goes on with partitions that the group has given it.

Invariant: from what was committed, and where that does not exist, at the record that comes after
what was done: said aloud, and never without the records behind a gap.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import Consumer, TopicPartition

from metallm_stream.kafka.out_of_order import Window
from metallm_stream.kafka.records import Partition
from metallm_stream.kafka.transaction import CALL_TIMEOUT_S, repeat
from metallm_stream.kafka.watchdog import Watchdog

log = logging.getLogger(__name__)


def starts_of(
    consumer: Consumer,
    keys: Sequence[Partition],
    topic_ids: Mapping[str, str],
    unplaced: Callable[[Mapping[Partition, int]], Mapping[Partition, Window]],
    watchdog: Watchdog,
) -> tuple[dict[Partition, Window], set[Partition]]:
    """The window that each partition begins with, and which begin elsewhere than was committed.

    Those are to be committed at once: the old position may come to lie within the log again.
    `topic_ids` are those of today. Waits for a dead member's transaction on these offsets, which is
    undecided for a while. Where not all that was done was committed, `unplaced` is asked; see
    `ExactlyOnce`.
    """
    begun: dict[Partition, Window] = {}
    firsts: dict[Partition, int] = {}
    moved: set[Partition] = set()
    for key, item in _committed(consumer, keys, watchdog).items():
        low, high = _bounds(consumer, key, watchdog)
        topic_id = topic_ids.get(item.topic)
        window = Window(low) if item.offset < 0 else _start(item, low, high, topic_id)
        if 0 <= item.offset != window.next_offset:
            moved.add(key)
        first = low if item.offset < 0 else window.told_below
        if first is not None and max(low, first) < high:
            firsts[key] = max(low, first)
        window.topic_id = topic_id or window.topic_id
        begun[key] = window
    for key, found in (unplaced(firsts) if firsts else {}).items():
        begun[key].add(firsts[key], found)
    return begun, moved | firsts.keys()


def untold(
    consumer: Consumer, keys: Sequence[Partition], watchdog: Watchdog
) -> dict[Partition, int]:
    """From where on `starts_of` would ask what was done, by partition."""
    firsts: dict[Partition, int] = {}
    for key, item in _committed(consumer, keys, watchdog).items():
        first = 0 if item.offset < 0 else Window(item.offset, item.metadata).told_below
        if first is not None:
            low, high = _bounds(consumer, key, watchdog)
            firsts |= {key: max(low, first)} if max(low, first) < high else {}
    return firsts


def _committed(
    consumer: Consumer, keys: Sequence[Partition], watchdog: Watchdog
) -> dict[Partition, TopicPartition]:
    wanted = [TopicPartition(*key) for key in keys]
    found = repeat(watchdog, "committed", lambda: consumer.committed(wanted, CALL_TIMEOUT_S))
    return {(item.topic, item.partition): item for item in found}


def _bounds(consumer: Consumer, key: Partition, watchdog: Watchdog) -> tuple[int, int]:
    where = TopicPartition(*key)
    return repeat(
        watchdog,
        "get_watermark_offsets",
        lambda: consumer.get_watermark_offsets(where, CALL_TIMEOUT_S),
    )


def _start(committed: TopicPartition, low: int, high: int, topic_id: str | None) -> Window:
    window, what = Window(committed.offset, committed.metadata), ""
    window.end_at(high)
    is_known = topic_id is not None and window.topic_id is not None
    if is_known and topic_id != window.topic_id:
        what, window = "the topic was made anew", Window(low)
    elif committed.offset < low:
        what = "records were deleted"
        window.begin_at(low)
    elif committed.offset > high and is_known:
        what, window = "the log was cut at its end", Window(high)
    elif committed.offset > high:
        what, window = "records were deleted or the topic was made anew", Window(low)
    if what:
        log.error(
            "%s[%d]: offset %d was committed but %d to %d exist: %s; going on at %d",
            *(committed.topic, committed.partition, committed.offset),
            *(low, high, what, window.next_offset),
        )
    return window
