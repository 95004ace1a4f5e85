"""Which life of a topic a position belongs to: one that is deleted and made anew has another id.

Invariant: only ids that brokers tell are compared; where they tell none, nothing is found.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from typing import Protocol

from confluent_kafka import TopicCollection, Uuid
from confluent_kafka.admin import TopicDescription

from metallm_stream.errors import MetallmError
from metallm_stream.kafka.connect import Admin, Connection
from metallm_stream.kafka.records import Partition

TIMEOUT_S = 5.0
_NONE = str(Uuid(0, 0))  # of brokers that know no ids

Answers = Mapping[str, "Future[TopicDescription]"]


class MadeAnewError(MetallmError):
    """A topic was made anew under its reader: restart the process."""


class Placed(Protocol):
    """What belongs to one life of a topic."""

    @property
    def topic_id(self) -> str | None:
        """The topic's id, if known."""


def topic_ids(connection: Connection, topics: Collection[str]) -> dict[str, str]:
    """The topics' ids, of those that brokers tell in time."""
    # Of a client of its own: in a group's callback, the consumer's answer would end the process.
    admin = connection.admin()
    return _told(_ask(admin, topics, TIMEOUT_S))


class TopicWatch:
    """Asks now and then whether topics are what they were, and never waits for the answer.

    Parameters
    ----------
    connection
        What a new client is made from, for one question each.
    every_s
        Between two questions.
    answer_s
        How long the brokers may take to answer.
    """

    def __init__(self, connection: Connection, every_s: float, answer_s: float) -> None:
        self._connection = connection
        self._every_s = every_s
        self._answer_s = answer_s
        self._asked_s = time.monotonic()
        self._under_way: tuple[Admin, Answers] | None = None

    def check(self, held: Mapping[Partition, Placed]) -> None:
        """Raises `MadeAnewError` once a topic is known to have another id than its positions."""
        if self._under_way is not None:
            answers = self._under_way[1]
            if not all(answer.done() for answer in answers.values()):
                return
            self._under_way = None
            _compare(held, _told(answers))
        elif held and time.monotonic() - self._asked_s >= self._every_s:
            self._asked_s = time.monotonic()
            admin = self._connection.admin()
            self._under_way = admin, _ask(admin, {topic for topic, _ in held}, self._answer_s)


def _ask(admin: Admin, topics: Collection[str], timeout_s: float) -> Answers:
    wanted = TopicCollection(sorted(set(topics)))
    return admin.describe_topics(wanted, request_timeout=timeout_s) if topics else {}


def _told(answers: Answers) -> dict[str, str]:
    return {
        topic: found
        for topic, answer in answers.items()
        # Raised, an exception would keep the client alive in a circle.
        if answer.exception() is None and (found := str(answer.result().topic_id)) != _NONE
    }


def _compare(held: Mapping[Partition, Placed], told: Mapping[str, str]) -> None:
    for (topic, _), place in held.items():
        if place.topic_id is not None and told.get(topic, place.topic_id) != place.topic_id:
            raise MadeAnewError(f"topic {topic!r} was deleted and made anew")
