"""What was done before is passed over, as far as the metadata of what is committed reaches."""

from __future__ import annotations

import time
from contextlib import closing

from confluent_kafka import Producer, TopicPartition

from metallm_stream.kafka import Connection, ExactlyOnce, Window
from metallm_stream.kafka.out_of_order import MAX_SPAN

COUNT = MAX_SPAN + 10_000


def test_what_was_found_done_is_not_passed_over_beyond_a_full_window() -> None:
    """However many records of it the client has at hand: the metadata would not fit."""
    mock = Producer({"test.mock.num.brokers": 1})  # librdkafka's own, which serves plain records
    for _ in range(COUNT):
        mock.produce("calls", b"", partition=0)
    mock.flush()
    (broker,) = mock.list_topics().brokers.values()
    member = ExactlyOnce(
        Connection(f"{broker.host}:{broker.port}"), ["calls"], group="group", slot="0"
    )
    window = Window(0, finished=range(1, COUNT))
    with closing(member._consumer) as consumer:
        member._windows = {("calls", 0): window}
        consumer.assign([TopicPartition("calls", 0, 0)])
        works, deadline_s = [], time.monotonic() + 30.0
        while not window.is_full and time.monotonic() < deadline_s:
            works += member.take(100, 1.0)
        works += member.take(100, 0.1)
    assert [work.offset for work in works] == [0]
    assert COUNT - window.left(COUNT) + 1 == MAX_SPAN
