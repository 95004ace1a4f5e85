"""The learner: decisions, results, feedback and verdicts joined, judged and summed, exactly once.

Invariant: rows, sums and read positions change in one PostgreSQL transaction, or not at all. A
crash anywhere is followed by a restart that reads again from the positions in PostgreSQL.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from sqlalchemy import Engine

from metallm_stream.errors import ConfigurationError, InvalidEvent
from metallm_stream.join import Interaction, change
from metallm_stream.kafka import (
    Connection,
    Lifeline,
    Partition,
    Record,
    TopicNames,
    Watchdog,
    dead_letter,
    offset_of,
    partition_of,
    raise_unless_passing,
    write,
)
from metallm_stream.policy import Sums
from metallm_stream.postgres import (
    Advance,
    DeadLetter,
    Position,
    advance,
    claim_encoder,
    claim_half_life,
    claim_partition,
    claim_slot,
    drop_days_before,
    forget_other_models,
    load_for_update,
    load_forgetting,
    load_slot_sums,
    save_dead_letters,
    save_interactions,
    save_model,
    save_sums,
)
from metallm_stream.serve.accountant import Accountant
from metallm_stream.serve.dead_letters import read_dead_letter
from metallm_stream.serve.drift import DriftWatch
from metallm_stream.serve.joined import Joined, read_joined
from metallm_stream.serve.knowledge import Knowledge
from metallm_stream.serve.learner_metrics import LearnerMetrics
from metallm_stream.serve.publisher import Publisher
from metallm_stream.serve.pupil import Pupil

OWN_NAME = "learner"
KAFKA_TIMEOUT_S = 15.0
TRANSACTION_LIMIT_S = 120.0
RETENTION_EVERY_S = 3_600.0
MAX_BATCH_BYTES = 32 * 1024 * 1024
END_OF_PARTITION = KafkaError._PARTITION_EOF  # noqa: SLF001

log = logging.getLogger(__name__)


@dataclass
class Batch:
    """What one transaction takes in: events to join, dead letters to keep and to write."""

    events: list[Joined] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    refused: list[Record] = field(default_factory=list)
    next_offsets: dict[Partition, int] = field(default_factory=dict)


class Learner:
    """Learns from four topics until it is told to stop.

    Parameters
    ----------
    connection, names
        The cluster and its topics.
    engine
        PostgreSQL, migrated.
    publisher
        Turns the sums into policies.
    accountant
        Charges calls to the budgets.
    encoder, dimensions
        Identity of the encoder whose contexts are learned from.
    slot
        Which replica this is: it owns the sums of this slot.
    batch_size, linger_s
        A transaction holds at most so many events, and waits at most so long for more.
    retention_days
        Interactions first seen longer ago are summed up and dropped.
    half_life_s
        Evidence counts half as much after so long; None: as much as ever.
    drift
        Watches for arms whose quality moves.
    pupil
        What learns beside the sums, if anything.
    now
        Time, aware UTC.
    """

    def __init__(
        self,
        connection: Connection,
        names: TopicNames,
        engine: Engine,
        publisher: Publisher,
        accountant: Accountant,
        *,
        encoder: str,
        dimensions: int,
        slot: str,
        batch_size: int,
        linger_s: float,
        retention_days: int,
        half_life_s: float | None,
        drift: DriftWatch,
        pupil: Pupil,
        now: Callable[[], datetime],
    ) -> None:
        self.metrics = LearnerMetrics(slot)
        self._names = names
        self._engine = engine
        self._publisher = publisher
        self._accountant = accountant
        self._encoder = encoder
        self._dimensions = dimensions
        self._slot = slot
        self._batch_size = batch_size
        self._linger_s = linger_s
        self._retention_days = retention_days
        self._drift = drift
        self._pupil = pupil
        self._now = now
        self._positions: dict[Partition, Position] = {}
        self._retention_at = 0.0
        self._is_closing = False
        self._is_assigned = False
        self._watchdog = Watchdog()
        self._knowledge = Knowledge(connection, names, None)
        self._producer: Producer = connection.producer()
        self._topics = [*names.joined, names.dead_letter_pattern()]
        member = (group := f"{names.prefix}metallm-learner", f"{group}-{slot}")
        self._consumer = connection.group_consumer(*member, positions_are_ours=True)
        self._lifeline = Lifeline(connection, *member, self._topics)
        self._claim(half_life_s)

    def _claim(self, half_life_s: float | None) -> None:
        """Fence whoever had this slot before, and take over its sums."""
        with self._engine.begin() as conn:
            changed_at = claim_half_life(conn, half_life_s)
        if changed_at is not None:
            log.info("evidence has a half-life of %s s from %s on", half_life_s, changed_at)
        with self._engine.begin() as conn:
            claim_encoder(conn, self._encoder, self._dimensions)
            self._lease = claim_slot(conn, self._slot)
            self._drift.load(conn)
            self._pupil.claim(conn)
            self._sums = Sums(self._dimensions)
            for arm, raw in load_slot_sums(conn, self._slot).items():
                self._sums.add_from_bytes(arm, raw)

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
        self._watchdog.close()

    def step(self) -> int:
        """Learn from one micro-batch and publish when it is time; returns the records read."""
        self._save_models(self._knowledge.refresh())
        messages = self._take()
        batch = self._sorted(messages)
        for topic, count in Counter(m.topic() for m in messages if m.error() is None).items():
            self.metrics.records.labels(topic).inc(count)
        if batch.next_offsets:
            with self._watchdog.limit("a learning transaction", TRANSACTION_LIMIT_S):
                self._learn(batch)
        began_s = time.monotonic()
        if self._publisher.publish_if_due(
            self._slot, self._sums, self._knowledge.catalogue, self._pupil.learned
        ):
            self.metrics.refresh_s.observe(time.monotonic() - began_s)
        self._accountant.publish_if_due(self._engine, self._producer)
        self._retain()
        self.metrics.stepped(self._lags)
        return len(messages)

    # Reading.

    def _take(self) -> list[Message]:
        self._lifeline.check(self._consumer, self._positions)
        messages: list[Message] = []
        deadline = time.monotonic() + self._linger_s
        size = 0
        while len(messages) < self._batch_size and size < MAX_BATCH_BYTES:
            message = self._consumer.poll(max(0.0, deadline - time.monotonic()))
            if message is None:
                break
            error = message.error()
            if error is not None:
                raise_unless_passing(error)
            if error is None or error.code() == END_OF_PARTITION:
                messages.append(message)
                size += len(message)
        return [message for message in messages if partition_of(message) in self._positions]

    def _sorted(self, messages: Iterable[Message]) -> Batch:
        batch = Batch()
        for message in messages:
            key = partition_of(message)
            topic = key[0]
            if message.error() is not None:  # the end, behind the last transaction's marker
                if offset_of(message) > self._positions[key].next_offset:
                    batch.next_offsets[key] = offset_of(message)
                continue
            batch.next_offsets[key] = offset_of(message) + 1
            try:
                if topic.endswith(".dlq"):
                    batch.dead.append(read_dead_letter(message))
                else:
                    batch.events.append(self._event(message))
            except InvalidEvent as exc:
                log.warning("%s@%d refused: %s", key, offset_of(message), exc.reason)
                dead_topic = self._names.dead_letters(topic)
                batch.refused.append(dead_letter(message, dead_topic, OWN_NAME, exc.reason))
                self.metrics.dead_letters.labels(topic).inc()
        return batch

    def _event(self, message: Message) -> Joined:
        return read_joined(message, self._names, self._encoder, self._dimensions)

    # Learning.

    def _learn(self, batch: Batch) -> None:
        began_s = time.monotonic()
        # 0. At least once: a crash before the transaction commits writes dead letters again.
        write(self._producer, batch.refused)
        advances = [
            Advance(self._positions[key], next_offset, self._high_watermark(key))
            for key, next_offset in batch.next_offsets.items()
        ]
        with self._engine.begin() as conn:
            # 1. Our positions must still be ours and where we left them.
            advance(conn, advances)
            # 2. Lock the queries, merge the events, and save what has changed.
            known = load_for_update(
                conn, {event.query_id for event in batch.events}, self._now().date()
            )
            merged = _merge(known, batch.events)
            changed = [(day, after) for day, before, after in merged if after is not before]
            held = {name: item for name, (_, item) in known.items() if item is not None}
            save_interactions(conn, changed, held)
            # 3. The change of the interactions is the change of the sums.
            pairs = [(before, after) for _, before, after in merged]
            forgetting = load_forgetting(conn)
            delta = change(pairs, self._encoder, self._dimensions, forgetting)
            sums = self._sums.copy()
            sums.merge(delta)
            lease = self._lease
            if delta.arms:
                raw = {arm: sums.arm_to_bytes(arm) for arm in delta.arms}
                newest = sums.as_of({})
                counts = {arm: newest.observations(arm) for arm in delta.arms}
                lease = save_sums(conn, lease, raw, counts)
            # 4. A policy that is no sum learns what is complete now, under the lease of the sums.
            learned = self._pupil.learn(conn, pairs)
            # 5. What the queries cost is charged to their budgets.
            accounts = self._accountant.book(conn, batch.events, pairs)
            # 6. Keep the dead letters of all services where SQL can see them.
            save_dead_letters(conn, batch.dead)
            # 7. Last, since a shift takes effect so soon after it was written: drift.
            now = self._now()
            observed = self._drift.observe(pairs, self._encoder, forgetting, now)
            self._drift.save(conn, observed, now)
        # 8. Committed: only now is it known here.
        self._accountant.committed(accounts)
        self._sums, self._lease = sums, lease
        self._pupil.accept(learned)
        self._drift.accept(observed)
        for item in advances:
            self._positions[item.position.topic, item.position.partition] = item.after
        self.metrics.transaction_s.observe(time.monotonic() - began_s)
        self.metrics.learned(pairs, observed)

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
        self._retention_at = time.monotonic() + RETENTION_EVERY_S
        oldest = self._now().date() - timedelta(days=self._retention_days)
        with self._engine.begin() as conn:
            drop_days_before(conn, oldest, self._encoder, self._dimensions)
            self._pupil.retain(conn)

    # The group.

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._is_closing:
            return  # a rebalance that ends while we leave; the broker no longer answers us
        starts = []
        for where in partitions:
            low, high = _watermarks(consumer, where)
            with self._engine.begin() as conn:
                position = claim_partition(conn, where.topic, where.partition, low)
            if not low <= position.next_offset <= high:
                raise ConfigurationError(_gone(position, low, high))
            self._positions[where.topic, where.partition] = position
            starts.append(TopicPartition(where.topic, where.partition, position.next_offset))
        log.info("assigned %s", ", ".join(f"{s.topic}[{s.partition}]@{s.offset}" for s in starts))
        consumer.incremental_assign(starts)
        self._is_assigned = True
        self._require_all(consumer)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._is_assigned = False
        self._on_revoke(consumer, partitions)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for where in partitions:
            self._positions.pop((where.topic, where.partition), None)
        consumer.incremental_unassign(partitions)
        if self._positions and not self._is_closing:  # somebody has taken the others
            self._require_all(consumer)

    def _require_all(self, consumer: Consumer) -> None:
        """Some pupils must learn from every partition."""
        joined = self._names.joined

        def existing() -> int:
            topics = consumer.list_topics(timeout=KAFKA_TIMEOUT_S).topics
            return sum(len(topics[topic].partitions) for topic in joined)

        self._pupil.require_all(sum(topic in joined for topic, _ in self._positions), existing)


def _merge(
    known: dict[str, tuple[date, Interaction | None]], events: Iterable[Joined]
) -> list[tuple[date, Interaction | None, Interaction]]:
    """Day, before and after of each query that the events are about."""
    after = {query_id: before or Interaction(query_id) for query_id, (_, before) in known.items()}
    for event in events:
        after[event.query_id] = after[event.query_id].merged(event)
    return [(day, before, after[query_id]) for query_id, (day, before) in known.items()]


def _watermarks(consumer: Consumer, where: TopicPartition) -> tuple[int, int]:
    try:
        return consumer.get_watermark_offsets(where, KAFKA_TIMEOUT_S)
    except KafkaException as exc:
        raise ConfigurationError(
            f"{where.topic}[{where.partition}]: the broker does not tell its offsets: "
            f"{exc.args[0].str()}"
        ) from exc


def _gone(position: Position, low: int, high: int) -> str:
    topic, partition = position.topic, position.partition
    return (
        f"{topic}[{partition}] holds offsets {low} to {high}, but the next one to learn from is "
        f"{position.next_offset}: records were deleted before they were read, or the topic was "
        f"made anew. Nothing is skipped silently; to go on at {low}, set next_offset to it in "
        f"table metallm.offsets where topic = '{topic}' and partition = {partition}"
    )
