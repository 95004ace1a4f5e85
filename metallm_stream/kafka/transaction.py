"""One transactional producer: what to do when a call fails, and when to give up.

Invariant: records and offsets of one `write` become visible together or not at all. When it has
returned they are visible; when it has raised, `abort` or whoever next starts with the same
transactional id settles what is still open.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from metallm_stream.errors import Fenced, MetallmError
from metallm_stream.kafka.connect import TRANSACTION_TIMEOUT_S, Connection
from metallm_stream.kafka.records import Record
from metallm_stream.kafka.rights import refused, require_rights
from metallm_stream.kafka.watchdog import Watchdog
from metallm_stream.kafka.watermarks import NO_LEADER

CALL_TIMEOUT_S = TRANSACTION_TIMEOUT_S
GRACE_S = 4.0
PATIENCE_S = 60.0
RETRY_S = 0.05
RIGHTS_TIMEOUT_S = 5.0
PASSING = (
    KafkaError._TIMED_OUT,  # noqa: SLF001
    KafkaError._TRANSPORT,  # noqa: SLF001
    # A coordinator that has just come back, or has moved.
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    *NO_LEADER,
)

T = TypeVar("T")
log = logging.getLogger(__name__)


class AbortNeededError(MetallmError):
    """The open transaction must be aborted; its records may go into the next one."""

    def __init__(self, error: KafkaError) -> None:
        super().__init__(error.str())
        # Where a record was refused while offsets were sent, the client says the latter.
        self.may_be_refusal = error.code() in (
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError._STATE,  # noqa: SLF001
        )


class Transactions:
    """The transactions of one producer, one after the other.

    Parameters
    ----------
    connection, transactional_id
        The cluster, and the producer's name in it.
    on_committed, on_aborted
        Called after each transaction, with the seconds from its begin to its commit.
    """

    def __init__(
        self,
        connection: Connection,
        transactional_id: str,
        *,
        on_committed: Callable[[float], None] = lambda _: None,
        on_aborted: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._id = transactional_id
        self._producer = connection.transactional_producer(transactional_id)
        self._watchdog = Watchdog()
        self._committed_hook = on_committed
        self._aborted_hook = on_aborted
        self._aborting_since_s: float | None = None

    def start(self) -> None:
        """Fence whoever had the transactional id before, and settle its open transaction."""
        self._repeat(
            f"init_transactions of {self._id!r}",
            lambda: self._producer.init_transactions(CALL_TIMEOUT_S),
        )

    def write(
        self,
        records: Iterable[Record],
        offsets: Sequence[TopicPartition] = (),
        group_metadata: object = None,
    ) -> None:
        """Write records and offsets in one transaction; returns when they are visible.

        Raises `AbortNeededError` when they may be written again after `abort`, `Fenced` when
        another producer has the transactional id, and `ConfigurationError` when a right is missing.
        """
        records = list(records)
        try:
            self._write(records, offsets, group_metadata)
        except AbortNeededError as exc:
            if exc.may_be_refusal:
                self._require_rights(records)
            raise

    def _write(
        self, records: list[Record], offsets: Sequence[TopicPartition], group_metadata: object
    ) -> None:
        began_s = time.monotonic()
        # 1. Begin, and write the records.
        self._producer.begin_transaction()
        for record in records:
            self._produce(record)
        self._producer.poll(0)
        # 2. Add the offsets: only for who is still a member as the metadata says.
        if offsets:
            self._repeat(
                f"send_offsets_to_transaction of {self._id!r}",
                lambda: self._producer.send_offsets_to_transaction(
                    list(offsets), group_metadata, CALL_TIMEOUT_S
                ),
            )
        # 3. Commit: now, and only now, the work counts as done.
        self._repeat(
            "commit_transaction", lambda: self._producer.commit_transaction(CALL_TIMEOUT_S)
        )
        self._aborting_since_s = None
        self._committed_hook(time.monotonic() - began_s)

    def abort(self, reason: AbortNeededError) -> None:
        """Abort the open transaction.

        Raises `Fenced` when even that is refused, or none was committed for a minute.
        """
        now_s = time.monotonic()
        if self._aborting_since_s is None:
            self._aborting_since_s = now_s
        if now_s - self._aborting_since_s > PATIENCE_S:
            raise Fenced(f"transactions are aborted again and again: {reason}") from reason
        log.warning("transaction of %s aborted, trying again: %s", self._id, reason)
        try:
            self._repeat(
                "abort_transaction", lambda: self._producer.abort_transaction(CALL_TIMEOUT_S)
            )
        except AbortNeededError as exc:
            raise Fenced(f"the transaction cannot be aborted: {exc}") from exc
        self._aborted_hook()

    def close(self) -> None:
        """Stop watching over calls that hang."""
        self._watchdog.close()

    def _require_rights(self, records: list[Record]) -> None:
        """Raises `ConfigurationError` that names the topic that we may not write, if that is it."""
        writes = {record.topic for record in records}
        admin = self._connection.admin()
        require_rights(admin, writes=sorted(writes), timeout_s=RIGHTS_TIMEOUT_S)

    def _produce(self, record: Record) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                record.produce(self._producer)
            except BufferError:
                if time.monotonic() > deadline:
                    raise
                self._producer.poll(0.05)
            except KafkaException as exc:
                raise _translate(exc, record.topic) from exc
            else:
                return

    def _repeat(self, what: str, call: Callable[[], T]) -> T:
        return repeat(self._watchdog, what, call)


def repeat(watchdog: Watchdog, what: str, call: Callable[[], T]) -> T:
    """Call until it succeeds, as long as the error is one that passes; then raise it."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with watchdog.limit(what, CALL_TIMEOUT_S + GRACE_S):
                return call()
        except KafkaException as exc:
            error = exc.args[0]
            passing = error.retriable() or error.code() in PASSING
            if not passing or error.txn_requires_abort() or time.monotonic() > deadline:
                raise _translate(exc, what) from exc
            log.warning("%s: %s, repeating", what, error.str())
            time.sleep(RETRY_S)


def _translate(exc: KafkaException, what: str) -> MetallmError | KafkaException:
    error = exc.args[0]
    needs_name = error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    if error.txn_requires_abort() and (needs_name or refused(error) is None):
        return AbortNeededError(error)
    if (told := refused(error, what)) is not None:
        return told
    if error.fatal():
        return Fenced(f"{error.str()}: another process has this slot, or the transaction timed out")
    return exc
