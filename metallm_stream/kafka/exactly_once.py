"""Consume, work, produce and commit as one: the loop that survives kills.

Invariant: the records of finished work and the offsets that say so become visible together or
not at all, and only for partitions that we own. Results are kept in memory until they are
committed, so that an aborted transaction is simply tried again. One thread owns the member; while
it goes on, another waits for the broker to commit, and no partition is given up meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

from confluent_kafka import Consumer, Message, TopicPartition

from metallm_stream.errors import Fenced
from metallm_stream.kafka.connect import Connection
from metallm_stream.kafka.follow import partitions_of
from metallm_stream.kafka.lifeline import USUAL, Lifeline, Patience
from metallm_stream.kafka.messages import offset_of, partition_of, raise_unless_passing
from metallm_stream.kafka.out_of_order import Window
from metallm_stream.kafka.records import Partition, Record
from metallm_stream.kafka.rights import require_rights
from metallm_stream.kafka.starts import starts_of, untold
from metallm_stream.kafka.topic_ids import topic_ids
from metallm_stream.kafka.transaction import AbortNeededError, Transactions
from metallm_stream.kafka.watchdog import Watchdog

REJOIN_POLL_S = 0.1
GATHER_POLL_S = 0.002
PAUSE_AFTER_S = 1.0
BATCH_BYTES = 8 * 1024 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """One record in work, and the window of the assignment under which it was read."""

    message: Message
    window: Window

    @property
    def partition(self) -> Partition:
        """Where the record came from."""
        return partition_of(self.message)

    @property
    def offset(self) -> int:
        """The record's position."""
        return offset_of(self.message)


class ExactlyOnce:
    """One group member and its transactional producer; all methods are for one thread.

    Parameters
    ----------
    connection
        The cluster.
    topics
        What to consume.
    group
        The consumer group; with `slot` it names the static member and the transactional id, so
        that a process started again in the same slot fences its predecessor.
    slot
        Which of the group's replicas this is.
    last_records
        What to write with each transaction after the records of its work, asked for as it begins:
        the work of different partitions is written in no order.
    unplaced
        Asked, before the group is joined if it can be, what was done of partitions that have
        records and of which the group has no position, or not all of it, from these offsets on;
        where it does not say, nothing was.
    on_assigned
        Called with new partitions before their first record is handed out.
    on_dropped
        Called with partitions that we no longer own.
    on_committed, on_aborted
        Called after each transaction, with the seconds from its begin to its commit; the first in
        another thread.
    patience
        How long the member may stand still before it is ended.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Sequence[str],
        *,
        group: str,
        slot: str,
        last_records: Callable[[], Sequence[Record]] = tuple,
        unplaced: Callable[[Mapping[Partition, int]], Mapping[Partition, Window]] = lambda _: {},
        on_assigned: Callable[[list[Partition]], None] = lambda _: None,
        on_dropped: Callable[[list[Partition]], None] = lambda _: None,
        on_committed: Callable[[float], None] = lambda _: None,
        on_aborted: Callable[[], None] = lambda: None,
        patience: Patience = USUAL,
    ) -> None:
        self._topics = list(topics)
        self._group = group
        self._connection = connection
        instance = f"{group}-{slot}"
        self._consumer = connection.group_consumer(group, instance)
        self._last_records = last_records
        self._unplaced_hook = unplaced
        self._assigned_hook = on_assigned
        self._dropped_hook = on_dropped
        self._lifeline = Lifeline(connection, group, instance, self._topics, patience)
        self._watchdog = Watchdog()
        self._transactions = Transactions(
            connection,
            instance,
            on_committed=on_committed,
            on_aborted=on_aborted,
        )
        self._committer = ThreadPoolExecutor(1, "commit")
        self._under_way: Future[None] | None = None
        self._committing: dict[Partition, list[Record]] = {}
        self._windows: dict[Partition, Window] = {}
        self._found: dict[Partition, Window | None] = {}  # by a look back before we were a member
        self._found_ids: Mapping[str, str] = {}  # of the topics that it was found in
        self._member_id: str | None = None  # under which the windows were begun
        self._pending: dict[Partition, list[Record]] = {}
        self._backlog: list[Work] = []
        self._paused: set[Partition] = set()
        self._full_since: float | None = None
        self._is_closing = False
        self._is_assigned = False

    def start(self) -> None:
        """Fence a predecessor and settle its transaction, then join the group."""
        self._transactions.start()
        self._look_back()
        self._consumer.subscribe(
            self._topics,
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def take(self, limit: int, timeout_s: float) -> list[Work]:
        """Up to `limit` new records, waiting at most `timeout_s` for the first one.

        Fewer where these have `BATCH_BYTES`: what is made of them has several times as many.

        With `limit` 0 this returns at once, and only when that has gone on for a second are the
        partitions paused and the group served: a resumed partition takes about a second to flow.
        """
        self._lifeline.check(self._consumer, self._windows)
        if not self.is_committing:
            self._settle()
        if not self._may_poll(limit):
            return []
        self._hold(limit)
        taken, self._backlog = self._backlog[: max(limit, 0)], self._backlog[max(limit, 0) :]
        wait_s = timeout_s if not taken else 0.0
        size = _bytes(taken)
        while limit <= 0 or (len(taken) < limit and size < BATCH_BYTES):
            message = self._consumer.poll(wait_s)
            if message is None:
                break
            work = self._begin(message)
            if work is not None:
                (taken if limit > 0 else self._backlog).append(work)
                size += len(message)
            if self._is_full(message):
                self._hold(limit)
            wait_s = 0.0
        return self._held(taken)

    def gather(self, limit: int, timeout_s: float) -> list[Work]:
        """As `take`, and on while a transaction is under way: what is done waits for it anyway.

        So that one of few records is not followed by one of few others: all that came meanwhile
        go into the next.
        """
        taken = self.take(limit, timeout_s)
        while self.is_committing and len(taken) < limit and _bytes(taken) < BATCH_BYTES:
            taken += self.take(limit - len(taken), GATHER_POLL_S)
        return self._held(taken)

    def _held(self, works: list[Work]) -> list[Work]:
        """The group may have been served meanwhile: what was taken away is not ours to do."""
        return [work for work in works if self._windows.get(work.partition) is work.window]

    def complete(self, work: Work, records: Sequence[Record]) -> bool:
        """Keep the outcome of one record for the next commit.

        False, and nothing is kept, if the partition was taken from us meanwhile: its new owner
        does the work again.
        """
        if self._windows.get(work.partition) is not work.window:
            return False
        work.window.finish(work.offset)
        self._pending.setdefault(work.partition, []).extend(records)
        return True

    @property
    def has_pending(self) -> bool:
        """Whether there is completed work to commit."""
        return bool(self._pending)

    @property
    def is_committing(self) -> bool:
        """Whether a transaction is under way; `commit` would wait for it."""
        return self._under_way is not None and not self._under_way.done()

    def commit(self) -> None:
        """Begin to commit all completed work in one transaction, once the one before has ended.

        What is completed from now on goes into the next one.
        """
        self._settle()
        self._begin_commit()

    def flush(self) -> None:
        """Commit all completed work; returns when it is visible."""
        while self._pending or self._under_way is not None:
            self.commit()
            self._settle()

    def lags(self) -> dict[Partition, int | None] | None:
        """How many records of each partition held are not done, without asking the broker.

        None where it has not told the partition's end yet, and None for all while the group has
        assigned nothing. A replica that the group has no partition for has an empty answer.
        """
        if not self._is_assigned:
            return None
        return {key: self._lag(key, window) for key, window in self._windows.items()}

    def _lag(self, key: Partition, window: Window) -> int | None:
        high = self._consumer.get_watermark_offsets(TopicPartition(*key), cached=True)[1]
        return None if high < 0 else window.left(high)

    def close(self) -> None:
        """Commit what is done and leave."""
        self.flush()
        self._is_closing = True
        self._consumer.close()
        self._committer.shutdown()
        self._transactions.close()
        self._watchdog.close()

    # Committing.

    def _begin_commit(self) -> None:
        """Have all completed work written, with the offsets of the partitions that we own."""
        if not self._pending:
            return
        offsets = [
            TopicPartition(topic, partition, window.next_offset, window.encode())
            for (topic, partition), window in self._windows.items()
            if (topic, partition) in self._pending
        ]
        # A client's methods wait for each other across threads: asked here, not there.
        metadata = self._consumer.consumer_group_metadata()
        self._require_same_member()  # as late as this: of whom the metadata tells
        self._committing, self._pending = self._pending, {}
        self._under_way = self._committer.submit(
            self._transactions.write,
            [*chain.from_iterable(self._committing.values()), *self._last_records()],
            offsets,
            metadata,
        )

    def _require_same_member(self) -> None:
        """Raise `Fenced` where the group has put this member out, and let it in again as another.

        It goes on without a member that is silent in the middle of a rebalance, and the client
        then believes in what it had kept, and would commit under the new membership what somebody
        else has done meanwhile: the broker compares members, not whose a partition is.
        """
        if self._windows and self._consumer.memberid() != self._member_id:
            raise Fenced(
                "the group has gone on without this member, and others may have done its work"
            )

    def _settle(self) -> None:
        """Wait for the transaction under way, and take its work back if it must be aborted."""
        if self._abort_if_needed():
            self._rejoin()

    def _abort_if_needed(self) -> bool:
        if self._under_way is None:
            return False
        ended, self._under_way = self._under_way, None
        try:
            ended.result()
        except AbortNeededError as exc:
            self._abort(exc)
            return True
        self._committing = {}
        return False

    def _abort(self, reason: AbortNeededError) -> None:
        self._transactions.abort(reason)
        for key, records in self._committing.items():
            self._pending[key] = records + self._pending.get(key, [])
        self._committing = {}

    def _rejoin(self) -> None:
        """Serve the group until it is settled; new records wait in the backlog."""
        deadline = time.monotonic() + REJOIN_POLL_S
        while time.monotonic() < deadline:
            message = self._consumer.poll(REJOIN_POLL_S)
            work = None if message is None else self._begin(message)
            if work is not None:
                self._backlog.append(work)

    # Reading.

    def _begin(self, message: Message) -> Work | None:
        error = message.error()
        if error is not None:
            raise_unless_passing(error, message.topic() or self._group)
            return None
        key = partition_of(message)
        window = self._windows.get(key)
        if window is None:
            return None
        if not window.begin(offset_of(message)):
            self._pending.setdefault(key, [])  # done before, and counted by the next position
            return None
        return Work(message, window)

    def _is_full(self, message: Message) -> bool:
        """Whether no more of its partition may be read, be it only to pass over what is done."""
        window = self._windows.get((message.topic() or "", message.partition() or 0))
        return window is not None and window.is_full

    def _may_poll(self, limit: int) -> bool:
        if limit > 0:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = time.monotonic()
        return self._full_since is None or time.monotonic() - self._full_since > PAUSE_AFTER_S

    def _hold(self, limit: int) -> None:
        held = {key for key, window in self._windows.items() if limit <= 0 or window.is_full}
        pause, resume = held - self._paused, (self._paused - held) & set(self._windows)
        if pause:
            self._consumer.pause([TopicPartition(*key) for key in pause])
        if resume:
            self._consumer.resume([TopicPartition(*key) for key in resume])
        self._paused = held

    # The group.

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._is_closing:
            return  # a rebalance that ends while we leave; the broker no longer answers us
        self._require_same_member()
        self._member_id = consumer.memberid()
        keys = [(item.topic, item.partition) for item in partitions]
        ids = topic_ids(self._connection, {topic for topic, _ in keys})
        found_in = self._found_ids  # offsets of a topic that was made anew since tell nothing
        self._found = {k: v for k, v in self._found.items() if found_in.get(k[0]) == ids.get(k[0])}
        windows, moved = starts_of(consumer, keys, ids, self._place, self._watchdog)
        self._found = {}
        self._windows |= windows
        self._pending |= {key: [] for key in moved}  # committed, so as to hold
        self._assigned_hook(keys)
        starts = [TopicPartition(*key, window.next_offset) for key, window in windows.items()]
        log.info("assigned %s", ", ".join(f"{s.topic}[{s.partition}]@{s.offset}" for s in starts))
        consumer.incremental_assign(starts)
        self._is_assigned = True

    def _look_back(self) -> None:
        """Ask for what the group does not know; it would not wait for a member for so long.

        What was found holds as long as nobody commits, which whoever does anything does.
        """
        # Without the right, the question for positions would only be given up.
        require_rights(self._connection.admin(), group=self._group)
        with closing(self._connection.reader(self._group)) as reader:
            places = chain.from_iterable(partitions_of(reader, topic) for topic in self._topics)
            keys = [(where.topic, where.partition) for where in places]
            firsts = untold(reader, keys, self._watchdog)
        if firsts:
            self._found_ids = topic_ids(self._connection, {topic for topic, _ in firsts})
            log.warning("looking back for what was done, which may take minutes: %s", firsts)
            self._found = {**dict.fromkeys(firsts), **self._unplaced_hook(firsts)}

    def _place(self, firsts: Mapping[Partition, int]) -> Mapping[Partition, Window]:
        new = {key: first for key, first in firsts.items() if key not in self._found}
        if new:
            self._abort_if_needed()  # an open transaction of ours would hide what was done
        found = {**self._found, **(self._unplaced_hook(new) if new else {})}
        return {key: window for key in firsts if (window := found.get(key)) is not None}

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if not self._is_closing:  # who leaves is no member any more, and has committed all
            self._require_same_member()
        self._abort_if_needed()
        self._begin_commit()
        self._abort_if_needed()
        self._drop(partitions)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        log.warning("lost %d partitions", len(partitions))
        self._is_assigned = False
        # Were they assigned to us again meanwhile, offsets from before would pass for new ones.
        self._abort_if_needed()
        self._drop(partitions)
        consumer.incremental_unassign(partitions)

    def _drop(self, partitions: list[TopicPartition]) -> None:
        keys = [(item.topic, item.partition) for item in partitions]
        # The client remembers a pause, and would keep to it if the partition came back.
        self._consumer.resume([TopicPartition(*key) for key in keys if key in self._paused])
        self._paused.difference_update(keys)
        for key in keys:
            self._windows.pop(key, None)
            self._pending.pop(key, None)
            self._committing.pop(key, None)
        self._backlog = [work for work in self._backlog if work.partition in self._windows]
        self._dropped_hook(keys)


def _bytes(works: Sequence[Work]) -> int:
    return sum(len(work.message) for work in works)
