"""Ends the work of a consumer that has lost a cluster which others reach: a restart mends that.

Invariant: nobody is ended for an outage. As long as a new client reaches the brokers no better than
the consumer does, it waits; it goes on within seconds of their return, and a restart would not.
"""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from metallm_stream.errors import MetallmError
from metallm_stream.kafka.connect import Connection

PATIENCE_S = 30.0
ANSWER_WITHIN_S = 5.0


class CutOffError(MetallmError):
    """The consumer does not reach brokers that a new client reaches: restart the process."""


class Lifeline:
    """Watches whether one consumer without partitions still reaches the cluster.

    Parameters
    ----------
    connection
        What a new client is made from.
    patience_s
        How long the consumer may be without partitions before it is looked into, each time.
    answer_s
        How long the brokers may take to answer.
    """

    def __init__(
        self,
        connection: Connection,
        patience_s: float = PATIENCE_S,
        answer_s: float = ANSWER_WITHIN_S,
    ) -> None:
        self._connection = connection
        self._patience_s = patience_s
        self._answer_s = answer_s
        self._since_s = time.monotonic()

    def check(self, consumer: Consumer, *, holds: bool) -> None:
        """Call with every turn of the loop; raises `CutOffError`.

        A consumer that `holds` partitions costs nothing; one that does not is asked for the
        cluster's metadata every `patience_s`, which may take a few seconds where there is trouble.
        """
        now_s = time.monotonic()
        if holds:
            self._since_s = now_s
        elif now_s - self._since_s >= self._patience_s:
            self._since_s = now_s
            if self._is_cut_off(consumer):
                raise CutOffError(
                    f"no partitions for {self._patience_s:g} s, and no answer from brokers that a "
                    "new client reaches"
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
