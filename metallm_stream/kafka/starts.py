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
) -> dict[Partition, Window]:
    """The window that each partition begins with; `topic_ids` are those of today.

    Waits for a dead member's transaction on these offsets, which is undecided for a while. Where
    nothing was committed, `unplaced` is asked; see `ExactlyOnce`.
    """
    wanted = [TopicPartition(*key) for key in keys]
    found = repeat(watchdog, "committed", lambda: consumer.committed(wanted, CALL_TIMEOUT_S))
    committed = {(item.topic, item.partition): item for item in found}
    bounds = {key: _bounds(consumer, key, watchdog) for key in committed}
    firsts = {
        key: low for key, (low, high) in bounds.items() if committed[key].offset < 0 and low < high
    }
    begun = dict(unplaced(firsts)) if firsts else {}
    for key, item in committed.items():
        topic_id = topic_ids.get(item.topic)
        if item.offset >= 0:
            begun[key] = _start(item, *bounds[key], topic_id)
        window = begun.setdefault(key, Window(bounds[key][0]))
        window.topic_id = topic_id or window.topic_id
    return begun


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
