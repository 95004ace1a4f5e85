"""Ends the work of a consumer that stands still where a restart mends that.

Two things leave a consumer without records for ever: it has lost a cluster which others reach, or
its group is at rest and has left partitions to nobody (see `unread`). A third leaves it with the
wrong ones: a topic was made anew, and it goes on at the position of the old one.

Invariant: nobody is ended for an outage. As long as a new client reaches the brokers no better than
the consumer does, it waits; it goes on within seconds of their return, and a restart would not.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from metallm_stream.errors import MetallmError
from metallm_stream.kafka.connect import SESSION_TIMEOUT_S, Connection
from metallm_stream.kafka.records import Partition
from metallm_stream.kafka.topic_ids import Placed, TopicWatch
from metallm_stream.kafka.unread import unread

ANSWER_WITHIN_S = 5.0


class CutOffError(MetallmError):
    """The consumer does not reach brokers that a new client reaches: restart the process."""


class LeftOutError(MetallmError):
    """The group had left partitions to nobody; the member has left it: restart the process."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a consumer may stand still.

    Parameters
    ----------
    cut_off_s
        Without partitions, until the brokers are asked whether they are there, each time.
    idle_s, busy_s
        Between two looks at the group, without and with partitions. What is found twice in a row,
        `idle_s` apart, is believed. Members without partitions look more often, since it costs
        nothing when they leave.
    session_s
        How long the group remembers a member that has left.
    topics_s
        Between two questions whether topics were made anew.
    """

    cut_off_s: float = 30.0
    idle_s: float = 10.0
    busy_s: float = 60.0
    session_s: float = SESSION_TIMEOUT_S
    topics_s: float = 5.0


USUAL = Patience()


class Lifeline:
    """Watches over one member of a group.

    Parameters
    ----------
    connection
        What a new client is made from.
    group, instance, topics
        The static member, and what it has subscribed to.
    patience
        How long it may stand still.
    answer_s
        How long the brokers may take to answer.
    """

    def __init__(
        self,
        connection: Connection,
        group: str,
        instance: str,
        topics: Sequence[str],
        patience: Patience = USUAL,
        answer_s: float = ANSWER_WITHIN_S,
    ) -> None:
        self._connection = connection
        self._member = (group, instance, tuple(topics))
        self._patience = patience
        self._answer_s = answer_s
        self._since_s = self._looked_s = time.monotonic()
        self._wait_s = patience.idle_s
        self._found: frozenset[Partition] = frozenset()
        self._topics = TopicWatch(connection, patience.topics_s, answer_s)

    def check(self, consumer: Consumer, held: Mapping[Partition, Placed]) -> None:
        """Call with every turn of the loop.

        Raises `CutOffError`, `LeftOutError` or `MadeAnewError`. Now and then brokers are asked,
        which may take a few seconds where there is trouble.
        """
        self._topics.check(held)
        now_s = time.monotonic()
        if held:
            self._since_s = now_s
        elif now_s - self._since_s >= self._patience.cut_off_s:
            self._since_s = now_s
            if self._is_cut_off(consumer):
                raise CutOffError(
                    f"no partitions for {self._patience.cut_off_s:g} s, and no answer from brokers "
                    "that a new client reaches"
                )
        if now_s - self._looked_s >= self._wait_s:
            self._look(consumer, held)

    def _look(self, consumer: Consumer, held: Mapping[Partition, Placed]) -> None:
        # A client for this look only: when the broker is back, librdkafka ends a process that still
        # has one whose question about a group has timed out (2.16, `enq_once_del_source_return`).
        admin, before = self._connection.admin(), self._found
        found = unread(admin, *self._member, held, self._answer_s)
        if found & before:
            self._leave(consumer, sorted(found & before))
        self._found, self._looked_s = found, time.monotonic()
        # Not all at once: the first who leaves mends it for all.
        spread = random.uniform(0.75, 1.25)  # noqa: S311
        is_idle = found or not held
        self._wait_s = spread * (self._patience.idle_s if is_idle else self._patience.busy_s)

    def _leave(self, consumer: Consumer, left: Sequence[Partition]) -> None:
        """Stay away until the group forgets the member, for it balances anew only then."""
        consumer.close()
        time.sleep(self._patience.session_s + 1.0)
        raise LeftOutError(
            f"the group {self._member[0]!r} was at rest and nobody read "
            + ", ".join(f"{topic}[{partition}]" for topic, partition in left)
        )

    def _is_cut_off(self, consumer: Consumer) -> bool:
        if self._reaches(consumer) or not self._reaches(self._connection.admin()):
            return False
        return not self._reaches(consumer)  # an outage that has just ended is over for both

    def _reaches(self, client: Consumer | AdminClient) -> bool:
        try:
            client.list_topics(timeout=self._answer_s)
        except KafkaException:
            return False
        return True
