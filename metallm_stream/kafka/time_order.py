"""Reads a consumer's partitions together, in the order of their records' times.

What belongs together was written at about the same time on several topics. Of a backlog the client
hands out one partition's records by the thousand before the next one's; here they wait for each
other, as the partitions of a task do in Kafka Streams. For correctness the order means nothing.

Invariant: each partition's records, and its ends between them, come in the order of its log, and
none of a partition that was forgotten. A time of the future counts as the time of reading, so that
no partition can be held back for ever.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from metallm_stream.kafka.messages import partition_of, raise_unless_passing
from metallm_stream.kafka.records import Partition

# What one partition may hold here; it is paused until a quarter of that is left.
MAX_HELD_BYTES = 8 * 1024 * 1024
# What a record takes beside its value.
OVERHEAD_BYTES = 500
# So long is waited for a partition that has more, which is longer only if its broker is away.
PATIENCE_S = 1.0


@dataclass
class _Held:
    """What was read of one partition and not yet taken: records and ends with times in ms."""

    records: deque[tuple[int, Message]] = field(default_factory=deque)
    size: int = 0
    is_at_end: bool = False
    is_paused: bool = False


class TimeOrder:
    """Batches of a consumer that tells the ends of partitions.

    Parameters
    ----------
    consumer
        Its partitions are assigned by the caller, who says so by `add` and `forget`.
    batch_size, batch_bytes
        A batch has at most so many records and ends, and ends with the record that makes it larger.
    linger_s
        So long is waited for a full batch once everything written has come.
    """

    def __init__(
        self, consumer: Consumer, *, batch_size: int, batch_bytes: int, linger_s: float
    ) -> None:
        self._consumer = consumer
        self._batch_size = batch_size
        self._batch_bytes = batch_bytes
        self._linger_s = linger_s
        self._held: dict[Partition, _Held] = {}
        self._heads: list[tuple[int, Partition]] = []  # a heap
        self._batch: list[Message] = []
        self._lagging: set[Partition] = set()  # they have more, and nothing of it is here yet

    def add(self, keys: Iterable[Partition]) -> None:
        """Hold records of these partitions, which are read from their start."""
        for key in keys:
            self._held[key] = _Held()
            self._lagging.add(key)

    def forget(self, keys: Iterable[Partition]) -> None:
        """Let go of these partitions and of what is held of them, also in a batch in the making."""
        gone = {key: self._held.pop(key) for key in keys if key in self._held}
        self._lagging.difference_update(gone)
        self._heads = [head for head in self._heads if head[1] not in gone]
        heapq.heapify(self._heads)
        # The client calls back while a batch is made.
        self._batch = [message for message in self._batch if partition_of(message) not in gone]
        # The client remembers a pause, and would keep to it if the partition came back.
        paused = [TopicPartition(*key) for key, held in gone.items() if held.is_paused]
        self._consumer.resume(paused)

    @property
    def has_more(self) -> bool:
        """Whether the last batch has left records here."""
        return bool(self._heads)

    def take(self) -> list[Message]:
        """The next batch: records, and ends of partitions as messages with that error."""
        began_s = time.monotonic()
        self._read(0.0)
        self._batch, size = [], 0
        while len(self._batch) < self._batch_size and size < self._batch_bytes:
            wait_s = PATIENCE_S if self._lagging else 0.0 if self._heads else self._linger_s
            left_s = wait_s and began_s + wait_s - time.monotonic()
            if left_s > 0:
                self._read(left_s)
            elif self._heads:
                self._batch.append(self._oldest())
                size += len(self._batch[-1])
            else:
                break
        self._resume()
        return self._batch

    def _read(self, timeout_s: float) -> None:
        message = self._consumer.poll(timeout_s)
        if message is None:
            return
        error = message.error()
        if error is not None:
            raise_unless_passing(error, message.topic())
            if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001
                return
        key = partition_of(message)
        held = self._held.get(key)
        if held is not None:
            self._keep(key, held, message)

    def _keep(self, key: Partition, held: _Held, message: Message) -> None:
        self._lagging.discard(key)
        held.is_at_end = message.error() is not None
        read_at = time.time_ns() // 1_000_000
        at = read_at if held.is_at_end else min(read_at, message.timestamp()[1])
        held.records.append((at, message))
        if len(held.records) == 1:
            heapq.heappush(self._heads, (at, key))
        held.size += OVERHEAD_BYTES + len(message)
        if held.size > MAX_HELD_BYTES and not held.is_paused:
            held.is_paused = True
            self._consumer.pause([TopicPartition(*key)])

    def _oldest(self) -> Message:
        key = self._heads[0][1]
        held = self._held[key]
        message = held.records.popleft()[1]
        held.size -= OVERHEAD_BYTES + len(message)
        if held.records:
            heapq.heapreplace(self._heads, (held.records[0][0], key))
        else:
            heapq.heappop(self._heads)
            if not held.is_at_end:
                self._lagging.add(key)
        return message

    def _resume(self) -> None:
        least = MAX_HELD_BYTES // 4
        ready = [key for key, held in self._held.items() if held.is_paused and held.size <= least]
        for key in ready:
            self._held[key].is_paused = False
        self._consumer.resume([TopicPartition(*key) for key in ready])
