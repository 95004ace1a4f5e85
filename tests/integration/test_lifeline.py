"""Consumers that stand still for ever, were they not ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from metallm_stream.embedded import EmbeddedStack
from metallm_stream.kafka import (
    Connection,
    CutOffError,
    ExactlyOnce,
    LeftOutError,
    Lifeline,
    Partition,
    Patience,
    Window,
)
from tests.pipeline import Pipeline
from tests.processes import eventually

NOWHERE = Connection("127.0.0.1:1")


class Severed(Connection):
    """A connection whose group members reach nobody, though its other clients do."""

    def group_consumer(
        self, group: str, instance: str, *, positions_are_ours: bool = False
    ) -> Consumer:
        """A consumer of a cluster that there is not."""
        return NOWHERE.group_consumer(group, instance, positions_are_ours=positions_are_ours)


def lifeline(connection: Connection, cut_off_s: float, answer_s: float = 5.0) -> Lifeline:
    """A lifeline that looks after brokers only."""
    return Lifeline(connection, "nobody", "0", ["nothing"], Patience(cut_off_s, 60, 60), answer_s)


def asked(line: Lifeline, consumer: Consumer) -> Callable[[], bool]:
    """Whether a check without partitions ends without an error."""

    def is_well() -> bool:
        line.check(consumer, {})
        return True

    return is_well


def copier(
    pipeline: Pipeline, connection: Connection, slot: str, patience: Patience
) -> tuple[ExactlyOnce, set[Partition]]:
    """A member of a group that reads queries, and what it was assigned."""
    got: set[Partition] = set()
    group, topics = f"{pipeline.names.prefix}copier", [pipeline.names.queries]
    loop = ExactlyOnce(
        connection, topics, group=group, slot=slot, on_assigned=got.update, patience=patience
    )
    loop.start()
    return loop, got


def test_a_consumer_that_is_cut_off_is_ended(pipeline: Pipeline) -> None:
    """In the loop, once it has had no partition for the time of patience; a restart mends it."""
    loop, _ = copier(pipeline, Severed(pipeline.bootstrap), "0", Patience(0.5, 60, 60))
    with pytest.raises(CutOffError, match="a new client reaches"):
        eventually(lambda: loop.take(1, 0.05), 40)
    loop.close()


def test_an_outage_ends_nobody(pipeline: Pipeline) -> None:
    """Where a new client reaches the brokers no better, a restart would not help."""
    member = NOWHERE.group_consumer("nobody", "0")
    assert asked(lifeline(NOWHERE, 0.0, 0.3), member)()
    member.close()
    reader = pipeline.kafka.reader()
    assert asked(lifeline(pipeline.kafka, 0.0), reader)()
    reader.close()


def test_who_holds_partitions_or_has_lost_them_just_now_is_not_asked() -> None:
    """The check costs nothing then; it would take seconds here."""
    member = NOWHERE.group_consumer("nobody", "0")
    lifeline(NOWHERE, 0.0, 0.3).check(member, {("queries", 0): Window(0)})
    lifeline(NOWHERE, 30.0, 0.3).check(member, {})
    member.close()


def test_a_group_at_rest_with_partitions_that_nobody_reads_is_woken(pipeline: Pipeline) -> None:
    """A member dies between the two rounds of a rebalance and comes back to what it had kept."""
    group, topic = f"{pipeline.names.prefix}copier", pipeline.names.queries
    first, again = (pipeline.kafka.group_consumer(group, f"{group}-0") for _ in range(2))
    with closing(first), closing(again):
        held: set[Partition] = set()

        def holds(member: Consumer, partitions: int) -> bool:
            member.poll(0.1)
            return len(held) == partitions

        first.subscribe([topic], on_assign=lambda _, new: held.update(map(key_of, new)))
        eventually(lambda: holds(first, 2))
        loop, _ = copier(pipeline, pipeline.kafka, "1", Patience(60, 1, 60))
        eventually(lambda: (loop.take(1, 0.1), loop.lags() == {})[1])
        held.clear()
        again.subscribe([topic], on_assign=lambda _, new: held.update(map(key_of, new)))
        eventually(lambda: holds(again, 1))
        with pytest.raises(LeftOutError, match="nobody read"):
            eventually(lambda: loop.take(1, 0.1))
        eventually(lambda: holds(again, 2))


def test_a_look_that_an_outage_cuts_short_leaves_no_question_behind(tmp_path: Path) -> None:
    """A client of librdkafka that still has one ends the process when the broker is back."""
    with EmbeddedStack(tmp_path / "state", database_url="postgresql://none") as stack:
        kafka, broker = Connection(stack.bootstrap_servers), stack.supervisor.children["kafka"]
        looks = Patience(60, 0.01, 0.01)
        line = Lifeline(kafka, "nobody", "0", ["queries"], looks, answer_s=1.0)
        with closing(kafka.group_consumer("nobody", "0")) as member:
            line.check(member, {})
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGKILL)
            eventually(lambda: broker.exit_codes == (137,))
            line.check(member, {})
            broker.wait_ready(60)
            back_s = time.monotonic()
            while time.monotonic() < back_s + 3:  # every client has found the broker by then
                line.check(member, {})
                member.poll(0.1)


def key_of(where: TopicPartition) -> Partition:
    """Topic and number."""
    return where.topic, where.partition
