"""Where a member goes on with partitions that the group has given it.

Invariant: from what was committed, and where that does not exist, at the record that comes after
what was done: said aloud, and never without the records behind a gap.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, TopicPartition

from metallm_stream.kafka.out_of_order import Window
from metallm_stream.kafka.records import Partition
from metallm_stream.kafka.transaction import CALL_TIMEOUT_S, repeat
from metallm_stream.kafka.watchdog import Watchdog

log = logging.getLogger(__name__)


def starts_of(
    consumer: Consumer, keys: Sequence[Partition], topic_ids: Mapping[str, str], watchdog: Watchdog
) -> dict[Partition, Window]:
    """The window that each partition begins with; `topic_ids` are those of today.

    Waits for a dead member's transaction on these offsets, which is undecided for a while.
    """
    wanted = [TopicPartition(*key) for key in keys]
    found = repeat(watchdog, "committed", lambda: consumer.committed(wanted, CALL_TIMEOUT_S))
    return {
        (item.topic, item.partition): _start(consumer, item, topic_ids.get(item.topic), watchdog)
        for item in found
    }


def _start(
    consumer: Consumer, committed: TopicPartition, topic_id: str | None, watchdog: Watchdog
) -> Window:
    where = TopicPartition(committed.topic, committed.partition)
    low, high = repeat(
        watchdog,
        "get_watermark_offsets",
        lambda: consumer.get_watermark_offsets(where, CALL_TIMEOUT_S),
    )
    window, what = Window(committed.offset, committed.metadata), ""
    window.end_at(high)
    is_known = topic_id is not None and window.topic_id is not None
    if committed.offset < 0:
        window = Window(low)
    elif is_known and topic_id != window.topic_id:
        what, window = "the topic was made anew", Window(low)
    elif committed.offset < low:
        what = "records were deleted"
        window.begin_at(low)
    elif committed.offset > high and is_known:
        what, window = "the log was cut at its end", Window(high)
    elif committed.offset > high:
        what, window = "records were deleted or the topic was made anew", Window(low)
    window.topic_id = topic_id or window.topic_id
    if what:
        log.error(
            "%s[%d]: offset %d was committed but %d to %d exist: %s; going on at %d",
            *(where.topic, where.partition, committed.offset, low, high, what, window.next_offset),
        )
    return window
