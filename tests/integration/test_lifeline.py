"""A consumer that has lost a cluster which others reach."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import Consumer

from metallm_stream.kafka import Connection, CutOffError, ExactlyOnce, Lifeline
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


def asked(lifeline: Lifeline, consumer: Consumer) -> Callable[[], bool]:
    """Whether a check without partitions ends without an error."""

    def is_well() -> bool:
        lifeline.check(consumer, holds=False)
        return True

    return is_well


def test_a_consumer_that_is_cut_off_is_ended(pipeline: Pipeline) -> None:
    """In the loop, once it has had no partition for the time of patience; a restart mends it."""
    group = f"{pipeline.names.prefix}copier"
    connection = Severed(pipeline.bootstrap)
    topics = [pipeline.names.queries]
    lifeline = Lifeline(connection, 0.5, 1.0)
    loop = ExactlyOnce(connection, topics, group=group, slot="0", lifeline=lifeline)
    loop.start()
    with pytest.raises(CutOffError, match="a new client reaches"):
        eventually(lambda: loop.take(1, 0.05), 40)
    loop.close()


def test_an_outage_ends_nobody(pipeline: Pipeline) -> None:
    """Where a new client reaches the brokers no better, a restart would not help."""
    member = NOWHERE.group_consumer("nobody", "0")
    assert asked(Lifeline(NOWHERE, 0.0, 0.3), member)()
    member.close()
    reader = pipeline.kafka.reader()
    assert asked(Lifeline(pipeline.kafka, 0.0), reader)()
    reader.close()


def test_who_holds_partitions_or_has_lost_them_just_now_is_not_asked() -> None:
    """The check costs nothing then; it would take seconds here."""
    member = NOWHERE.group_consumer("nobody", "0")
    Lifeline(NOWHERE, 0.0, 0.3).check(member, holds=True)
    Lifeline(NOWHERE, 30.0, 0.3).check(member, holds=False)
    member.close()
