"""The learner: decisions, results, feedback and verdicts joined, judged and summed, exactly once.

Invariant: rows, sums and read positions change in one PostgreSQL transaction, or not at all. A
crash anywhere is followed by a restart that reads again from the positions in PostgreSQL. Of a
backlog the next batch is read while a transaction is under way; nothing else is: partitions come
and go, and policies are published, when it has ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from sqlalchemy import Engine

from metallm_stream.errors import InvalidEvent
from metallm_stream.kafka import (
    Connection,
    Lifeline,
    Partition,
    Record,
    TimeOrder,
    TopicNames,
    Watchdog,
    dead_letter,
    offset_of,
    partition_of,
    topic_ids,
    write,
)
from metallm_stream.postgres import (
    Advance,
    DeadLetter,
    Position,
    TooMuchError,
    forget_other_models,
    save_model,
    sums_bytes,
)
from metallm_stream.serve.accountant import Accountant
from metallm_stream.serve.claim import claimed
from metallm_stream.serve.dead_letters import read_dead_letter
from metallm_stream.serve.fold import Fold
from metallm_stream.serve.joined import Joined, read_joined
from metallm_stream.serve.knowledge import Knowledge
from metallm_stream.serve.learner_metrics import LearnerMetrics
from metallm_stream.serve.publisher import Publisher

SERVICE = "learner"
KAFKA_TIMEOUT_S = 15.0
TRANSACTION_LIMIT_S = 120.0
RETENTION_EVERY_S = 3_600.0
RETENTION_PAUSE_S = 0.5
WEIGHED_EVERY_S = 60.0
MAX_BATCH_BYTES = 32 * 1024 * 1024

log = logging.getLogger(__name__)


# Where a record stood, where the next one does, and what it says if that is to be kept.
Taken = tuple[Partition, int, Joined | DeadLetter | None]


@dataclass
class Batch:
    """What was read together, in order, and the dead letters to write for it."""

    taken: list[Taken] = field(default_factory=list)
    refused: list[Record] = field(default_factory=list)


class Learner:
    """Learns from four topics until it is told to stop.

    Parameters
    ----------
    connection, names
        The cluster and its topics.
    engine
        PostgreSQL, migrated.
    fold
        What is learned, and from which encoder's contexts.
    publisher
        Turns the sums into policies.
    accountant
        Charges calls to the budgets.
    batch_size, linger_s
        A transaction holds at most so many events, fewer where what is known of their queries is
        large, and waits at most so long for more.
    retention_days
        Interactions first seen longer ago are summed up and dropped.
    """

    def __init__(
        self,
        connection: Connection,
        names: TopicNames,
        engine: Engine,
        fold: Fold,
        publisher: Publisher,
        accountant: Accountant,
        *,
        batch_size: int,
        linger_s: float,
        retention_days: int,
    ) -> None:
        self.metrics = LearnerMetrics(fold.slot)
        self.metrics.reads(names.joined)
        self._connection = connection
        self._names = names
        self._engine = engine
        self._fold = fold
        self._publisher = publisher
        self._accountant = accountant
        self._retention_days = retention_days
        self._positions: dict[Partition, Position] = {}
        self._retention_at = 0.0
        self._weighed_at = -WEIGHED_EVERY_S
        self._is_closing = False
        self._is_assigned = False
        self._next: Batch | None = None  # read while a transaction was under way
        self._under_way: Future[dict[Partition, Position]] | None = None
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="committer")
        self._watchdog = Watchdog()
        self._knowledge = Knowledge(connection, names, None)
        self._producer: Producer = connection.producer()
        self._topics = [*names.joined, names.dead_letter_pattern()]
        member = (group := f"{names.prefix}metallm-learner", f"{group}-{fold.slot}")
        self._consumer = connection.group_consumer(*member, positions_are_ours=True)
        self._lifeline = Lifeline(connection, *member, self._topics)
        self._records = TimeOrder(
            self._consumer, batch_size=batch_size, batch_bytes=MAX_BATCH_BYTES, linger_s=linger_s
        )

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set."""
        self._knowledge.catch_up()
        with self._engine.begin() as conn:
            forget_other_models(conn, list(self._knowledge.catalogue))
            self._accountant.recall(conn)
        self._save_models(self._knowledge.catalogue.arms.items())
        self._consumer.subscribe(
            self._topics,
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        log.info("learner is ready")
        while not stop.is_set():
            self.step()
        self._is_closing = True
        self._consumer.close()
        self._knowledge.close()
        self._publisher.close()
        self._committer.shutdown()
        self._watchdog.close()

    def step(self) -> None:
        """Learn from one micro-batch and publish when it is time."""
        self._save_models(self._knowledge.refresh())
        self._lifeline.check(self._consumer, self._positions)
        batch, self._next = self._next or self._read(), None
        if batch.taken:
            self._learn(batch)
        began_s, fold = time.monotonic(), self._fold
        if self._publisher.publish_if_due(
            fold.slot, fold.sums, self._knowledge.catalogue, fold.pupil.learned
        ):
            self.metrics.refresh_s.observe(time.monotonic() - began_s)
        self._accountant.publish_if_due(self._engine, self._producer)
        self._retain()
        self._weigh()
        self.metrics.stepped(self._lags)

    # Reading.

    def _read(self) -> Batch:
        messages = self._records.take()
        for topic, count in Counter(m.topic() for m in messages if m.error() is None).items():
            self.metrics.records.labels(topic).inc(count)
        return self._sorted(messages)

    def _sorted(self, messages: Iterable[Message]) -> Batch:
        batch = Batch()
        for message in messages:
            key = partition_of(message)
            topic = key[0]
            if message.error() is not None:  # the end, behind the last transaction's marker
                if offset_of(message) > self._positions[key].next_offset:
                    batch.taken.append((key, offset_of(message), None))
                continue
            said: Joined | DeadLetter | None = None
            try:
                is_dead = topic.endswith(".dlq")
                said = read_dead_letter(message) if is_dead else self._event(message)
            except InvalidEvent as exc:
                log.warning("%s@%d refused: %s", key, offset_of(message), exc.reason)
                dead_topic = self._names.dead_letters(topic)
                batch.refused.append(dead_letter(message, dead_topic, SERVICE, exc.reason))
                self.metrics.dead_letters.labels(topic).inc()
            batch.taken.append((key, offset_of(message) + 1, said))
        return batch

    def _event(self, message: Message) -> Joined:
        return read_joined(message, self._names, self._fold.encoder, self._fold.dimensions)

    # Learning.

    def _learn(self, batch: Batch) -> None:
        # At least once: a crash before the transaction commits writes dead letters again.
        write(self._producer, batch.refused)
        highs = {key: self._high_watermark(key) for key in {key for key, _, _ in batch.taken}}
        positions = {key: self._positions[key] for key in highs}
        self._under_way = self._committer.submit(self._commit, batch.taken, positions, highs)
        if self._records.has_more:
            self._next = self._read()
        self._settle()

    def _commit(
        self,
        taken: Sequence[Taken],
        positions: Mapping[Partition, Position],
        highs: Mapping[Partition, int],
    ) -> dict[Partition, Position]:
        """Learn all of it, in halves where that is too much at once; the positions from then on."""
        ends = {key: next_offset for key, next_offset, _ in taken}
        advances = [Advance(positions[key], end, highs[key]) for key, end in ends.items()]
        dead = [said for _, _, said in taken if isinstance(said, DeadLetter)]
        events = [said for _, _, said in taken if not isinstance(said, DeadLetter | None)]
        learned = None
        with (
            suppress(TooMuchError),
            self._watchdog.limit("a learning transaction", TRANSACTION_LIMIT_S),
            self.metrics.transaction_s.time(),
        ):
            learned = self._fold.learn(events, dead, advances)
        if learned is None:
            log.info("what %d records change is too much to load at once: in halves", len(taken))
            half = len(taken) // 2
            return self._commit(taken[half:], self._commit(taken[:half], positions, highs), highs)
        self.metrics.learned(learned.pairs, learned.observed)
        moved = [item.after for item in advances]
        return {**positions, **{(item.topic, item.partition): item for item in moved}}

    def _settle(self) -> None:
        """Wait for the transaction under way, if there is one: only then is known what it did."""
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            self._positions |= under_way.result()

    def _high_watermark(self, key: Partition) -> int:
        return self._consumer.get_watermark_offsets(TopicPartition(*key), cached=True)[1]

    def _lags(self) -> dict[Partition, int | None] | None:
        """Unread records of each partition; None while the group has assigned nothing."""
        if not self._is_assigned:
            return None
        lags: dict[Partition, int | None] = {}
        for key, position in self._positions.items():
            high = self._high_watermark(key)
            lags[key] = None if high < 0 else max(0, high - position.next_offset)
        return lags

    def _save_models(self, changes: Iterable[tuple[str, object]]) -> None:
        arms = {arm for arm, _ in changes}
        if arms:
            known = self._knowledge.catalogue.arms
            with self._engine.begin() as conn:
                for arm in sorted(arms):
                    save_model(conn, arm, known.get(arm))

    def _retain(self) -> None:
        if time.monotonic() < self._retention_at:
            return
        has_more = self._fold.retain(self._retention_days)
        has_more |= self._accountant.forget(self._engine, self._producer, self._retention_days)
        wait_s = RETENTION_PAUSE_S if has_more else RETENTION_EVERY_S
        self._retention_at = time.monotonic() + wait_s

    def _weigh(self) -> None:
        if time.monotonic() < self._weighed_at + WEIGHED_EVERY_S:
            return
        self._weighed_at = time.monotonic()
        with self._engine.begin() as conn:
            on_disk, in_force = sums_bytes(conn)
        self.metrics.sums_bytes.set(on_disk)
        self.metrics.sums_in_force_bytes.set(in_force)

    # The group.

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._is_closing:
            return  # a rebalance that ends while we leave; the broker no longer answers us
        self._settle()
        starts = []
        ids = topic_ids(self._connection, {where.topic for where in partitions})
        for where in partitions:
            position = claimed(consumer, self._engine, where, ids.get(where.topic))
            self._positions[where.topic, where.partition] = position
            self._records.add([(where.topic, where.partition)])
            starts.append(TopicPartition(where.topic, where.partition, position.next_offset))
        log.info("assigned %s", ", ".join(f"{s.topic}[{s.partition}]@{s.offset}" for s in starts))
        consumer.assign(starts)
        self._is_assigned = True
        self._require_all()

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._is_assigned = False
        self._on_revoke(consumer, partitions)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._settle()
        keys = [(where.topic, where.partition) for where in partitions]
        for key in keys:
            self._positions.pop(key, None)
        self._records.forget(keys)
        decisions = self._names.decisions
        self._accountant.give_up(number for topic, number in keys if topic == decisions)
        consumer.unassign()

    def _require_all(self) -> None:
        """Some pupils must learn from every partition."""
        joined = self._names.joined

        def existing() -> int:
            # Of another client: in a callback, this one's answer would end the process.
            topics = self._connection.admin().list_topics(timeout=KAFKA_TIMEOUT_S).topics
            return sum(len(topics[topic].partitions) for topic in joined)

        self._fold.pupil.require_all(sum(topic in joined for topic, _ in self._positions), existing)
