"""Reading without a group: compacted topics from their start, or the tails of partitions.

Invariant: `catch_up` ends only when everything that was committed before it began was read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from metallm_stream.errors import ConfigurationError, Unreachable
from metallm_stream.kafka.connect import Connection
from metallm_stream.kafka.messages import offset_of, partition_of, raise_unless_passing
from metallm_stream.kafka.records import Partition
from metallm_stream.kafka.topics import no_topic
from metallm_stream.kafka.watermarks import TIMEOUT_S, watermarks

BATCH = 500
SILENCE_S = 60.0  # the longest between two records on the way to an end
SETTLED_WITHIN_S = 60.0
SETTLING_POLL_S = 0.1

KeptT = TypeVar("KeptT")


class Follower:
    """Reads whole topics and then follows them, in one thread."""

    def __init__(self, connection: Connection, topics: Sequence[str]) -> None:
        self._consumer = connection.reader()
        self._partitions = [
            where for topic in topics for where in partitions_of(self._consumer, topic)
        ]
        for where in self._partitions:
            where.offset, _ = watermarks(self._consumer, where)
        self._consumer.assign(self._partitions)

    def catch_up(self) -> Iterator[Message]:
        """All records up to the present end, as they come; read them all before anything else.

        Raises `Unreachable` when nothing more comes.
        """
        return to_end(self._consumer, self._partitions)

    def poll(self) -> list[Message]:
        """What has come since, without waiting."""
        messages = []
        for message in self._consumer.consume(BATCH, 0):
            error = message.error()
            if error is None:
                messages.append(message)
            else:
                raise_unless_passing(error, message.topic())
        return messages

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()


def read_tails(
    connection: Connection,
    topic: str,
    partitions: Iterable[int],
    count: int,
    keep: Callable[[Message], KeptT],
) -> dict[int, list[KeptT]]:
    """What `keep` takes from at least the last `count` records of each partition, oldest first.

    The records themselves may be too large to hold so many. Transaction markers and aborted records
    take offsets too, so more and more of those are read.
    """
    tails: dict[int, list[KeptT]] = {}
    with closing(connection.reader()) as consumer:
        left = {each: watermarks(consumer, TopicPartition(topic, each)) for each in partitions}
        span = count + count // 4
        while left:
            starts = {each: max(low, high - span) for each, (low, high) in left.items()}
            tails |= {each: [] for each in left}
            # All at once: there may be hundreds, and each alone takes a tenth of a second.
            places = [TopicPartition(topic, *start) for start in starts.items()]
            consumer.assign(places)
            for message in to_end(consumer, places):
                tails[partition_of(message)[1]].append(keep(message))
            left = {
                each: bounds
                for each, bounds in left.items()
                if len(tails[each]) < count and starts[each] > bounds[0]
            }
            span *= 2
    return tails


def to_end(
    consumer: Consumer, partitions: Sequence[TopicPartition], timeout_s: float = SILENCE_S
) -> Iterator[Message]:
    """Records of assigned partitions up to their present ends, as they come.

    Raises `Unreachable` when nothing has come for `timeout_s`.
    """
    waiting = {(where.topic, where.partition) for where in partitions}
    deadline = time.monotonic() + timeout_s
    while waiting:
        messages = consumer.consume(BATCH, 0.1)
        if messages:
            deadline = time.monotonic() + timeout_s
        elif time.monotonic() > deadline:
            raise Unreachable(
                f"{sorted(waiting)}: end not reached, and nothing has come for {timeout_s:.0f} s"
            )
        for message in messages:
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                waiting.discard(partition_of(message))
            else:
                raise_unless_passing(error, message.topic())


def read_from_start(
    connection: Connection, topic: str, ends: Mapping[int, int]
) -> Iterator[Message]:
    """The records of a topic below `ends`, the first offset that is not wanted by partition.

    Raises `ConfigurationError` if a partition no longer begins with its first record.
    """
    with closing(connection.reader()) as consumer:
        unread = {partition for partition, end in ends.items() if end > 0}
        for partition in sorted(unread):
            low, _ = watermarks(consumer, TopicPartition(topic, partition))
            if low > 0:
                raise ConfigurationError(
                    f"{topic}[{partition}] begins at offset {low}: the log no longer holds all "
                    "that was learned from it"
                )
        consumer.assign([TopicPartition(topic, partition, 0) for partition in sorted(unread)])
        while unread:
            for message in consumer.consume(BATCH, 1.0):
                partition = partition_of(message)[1]
                error = message.error()
                if error is not None:
                    raise_unless_passing(error)
                    unread.discard(partition)
                elif offset_of(message) < ends[partition]:
                    yield message
                else:
                    unread.discard(partition)


def read_from(connection: Connection, starts: Mapping[Partition, int]) -> Iterator[Message]:
    """The records of partitions from these offsets to their present ends."""
    with closing(connection.reader()) as consumer:
        places = [TopicPartition(*key, offset) for key, offset in starts.items()]
        consumer.assign(places)
        yield from to_end(consumer, places)


def wait_settled(connection: Connection, topic: str) -> None:
    """Return when all that was written to a topic before now is there for committed readers.

    Somebody's open transaction hides from them what others have committed behind it. Raises
    `Unreachable` where one stays open for `SETTLED_WITHIN_S`.
    """
    every, committed = connection.reader(isolation="read_uncommitted"), connection.reader()
    with closing(every), closing(committed):
        ends = {where: watermarks(every, where)[1] for where in partitions_of(every, topic)}
        deadline = time.monotonic() + SETTLED_WITHIN_S
        for where, end in ends.items():
            while watermarks(committed, where)[1] < end:
                if time.monotonic() > deadline:
                    raise Unreachable(
                        f"{topic}[{where.partition}]: a transaction that stays open hides what was "
                        "written after it: `kafka-transactions.sh find-hanging` tells whose"
                    )
                time.sleep(SETTLING_POLL_S)


def first_offsets(connection: Connection, topic: str) -> dict[Partition, int]:
    """The first offset of each partition that was not deleted; 0 where none ever was."""
    with closing(connection.reader()) as consumer:
        places = partitions_of(consumer, topic)
        return {(topic, where.partition): watermarks(consumer, where)[0] for where in places}


def offsets_since(connection: Connection, topic: str, at_ms: int) -> dict[Partition, int]:
    """Where each partition's records from a time on begin; its end if there are none."""
    with closing(connection.reader()) as consumer:
        places = partitions_of(consumer, topic)
        for where in places:
            where.offset = max(0, at_ms)
        found = consumer.offsets_for_times(places, TIMEOUT_S)
        return {(topic, where.partition): where.offset for where in found}


def partitions_of(consumer: Consumer, topic: str) -> list[TopicPartition]:
    """All partitions of a topic. Raises `ConfigurationError` if it is missing."""
    found = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if found.error is not None or not found.partitions:
        raise ConfigurationError(no_topic(topic))
    return [TopicPartition(topic, partition) for partition in sorted(found.partitions)]
