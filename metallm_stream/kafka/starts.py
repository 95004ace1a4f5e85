"""Where a member goes on with partitions that the group has given it.

Invariant: from what was committed, and where that was deleted meanwhile, from the first record that
exists: said aloud, and never without the records behind a gap.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from confluent_kafka import Consumer, TopicPartition

from metallm_stream.kafka.out_of_order import Window
from metallm_stream.kafka.records import Partition
from metallm_stream.kafka.transaction import CALL_TIMEOUT_S, repeat
from metallm_stream.kafka.watchdog import Watchdog

log = logging.getLogger(__name__)


def starts_of(
    consumer: Consumer, keys: Sequence[Partition], watchdog: Watchdog
) -> list[TopicPartition]:
    """The next offset of each partition, with the metadata that its window begins with.

    Waits for a dead member's transaction on these offsets, which is undecided for a while.
    """
    wanted = [TopicPartition(*key) for key in keys]
    found = repeat(watchdog, "committed", lambda: consumer.committed(wanted, CALL_TIMEOUT_S))
    return [_start(consumer, item, watchdog) for item in found]


def _start(consumer: Consumer, committed: TopicPartition, watchdog: Watchdog) -> TopicPartition:
    where = TopicPartition(committed.topic, committed.partition)
    low, high = repeat(
        watchdog,
        "get_watermark_offsets",
        lambda: consumer.get_watermark_offsets(where, CALL_TIMEOUT_S),
    )
    if low <= committed.offset <= high:
        return committed
    if committed.offset >= 0:
        log.error(
            "%s[%d]: offset %d was committed but %d to %d exist: records were deleted or the "
            "topic was made anew; going on at %d",
            *(where.topic, where.partition, committed.offset, low, high, low),
        )
        if committed.offset < low:
            window = Window(committed.offset, committed.metadata)
            window.begin_at(low)
            return TopicPartition(where.topic, where.partition, low, window.encode())
    return TopicPartition(where.topic, where.partition, low)
