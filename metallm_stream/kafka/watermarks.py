"""Where a partition begins and ends.

Invariant: nothing here calls back. The group's callbacks ask for this, and a call that itself may
call back, such as `list_topics`, ends the process in the next callback of the same poll.
"""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

TIMEOUT_S = 15.0
_LEAST_S = 0.1
_RETRY_S = 0.05
NO_LEADER = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - a broker that starves is left out for a moment
)


def watermarks(consumer: Consumer, where: TopicPartition) -> tuple[int, int]:
    """The first offset and the end; a partition may have no leader for a moment.

    Raises `KafkaException` if that lasts for `TIMEOUT_S`, or for another reason.
    """
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        left_s = max(_LEAST_S, deadline_s - time.monotonic())
        try:
            return consumer.get_watermark_offsets(where, left_s)
        except KafkaException as exc:
            if exc.args[0].code() not in NO_LEADER or time.monotonic() > deadline_s:
                raise
        time.sleep(_RETRY_S)  # the client looks who leads it now
