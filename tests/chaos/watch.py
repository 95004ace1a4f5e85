"""What a stranger sees while the stream runs: when results come, and how positions move.

Invariant: a watcher never fails because a server is away; it looks again until it is told to end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from sqlalchemy import make_url

from tests.chaos.checker import Progress
from tests.pipeline import Pipeline

_EVERY_S = 0.05
_GROUPS_EVERY_S = 0.5
_POSITIONS = "SELECT topic, partition, next_offset FROM metallm.offsets"
_VERSION = "SELECT coalesce(max(version), 0) FROM metallm.policies"


class Watch:
    """Arrivals and positions of one stream.

    Attributes
    ----------
    arrivals
        When each (topic, partition, offset) of decisions and results came to a committed reader.
    progress
        Positions as they were seen.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.arrivals: dict[tuple[str, int, int], float] = {}
        self.progress: list[Progress] = []
        self._pipeline = pipeline
        self._prefix = pipeline.names.prefix
        self._is_over = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch until the end of the block."""
        watchers = (self._watch_topics, self._watch_sql, self._watch_groups)
        threads = [threading.Thread(target=watch, daemon=True) for watch in watchers]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join()

    def count(self, topic: str) -> int:
        """How many records of a topic (without its prefix) have come."""
        return sum(place[0] == topic for place in tuple(self.arrivals))

    def _watch_topics(self) -> None:
        names = self._pipeline.names
        consumer = self._reader("watch")
        topics = (names.decisions, names.results)
        listed = consumer.list_topics(timeout=15).topics
        consumer.assign(
            [TopicPartition(t, p, OFFSET_BEGINNING) for t in topics for p in listed[t].partitions]
        )
        while not self._is_over.is_set():
            for message in consumer.consume(500, 0.1):
                if message.error() is None:
                    topic = (message.topic() or "").removeprefix(self._prefix)
                    place = (topic, message.partition() or 0, message.offset() or 0)
                    self.arrivals[place] = time.time()
        consumer.close()

    def _watch_sql(self) -> None:
        url = make_url(self._pipeline.database_url).set(drivername="postgresql")
        where = url.render_as_string(hide_password=False)
        while not self._is_over.wait(_EVERY_S):
            try:
                with psycopg.connect(where, autocommit=True, connect_timeout=2) as connection:
                    while not self._is_over.wait(_EVERY_S):
                        self._note_sql(connection)
            except psycopg.Error:
                continue

    def _note_sql(self, connection: psycopg.Connection) -> None:
        at_s = time.time()
        for topic, partition, next_offset in connection.execute(_POSITIONS).fetchall():
            where = f"{topic.removeprefix(self._prefix)}[{partition}]"
            self.progress.append(Progress(at_s, "learner", where, next_offset))
        (version,) = connection.execute(_VERSION).fetchone()
        self.progress.append(Progress(at_s, "policies", "version", version))

    def _watch_groups(self) -> None:
        groups = {"router": self._pipeline.names.queries}
        groups |= {"worker-recorded": self._pipeline.names.calls("recorded")}
        groups |= {"judge": self._pipeline.names.cases}
        readers = {name: self._reader(f"{self._prefix}metallm-{name}") for name in groups}
        while not self._is_over.wait(_GROUPS_EVERY_S):
            for name, topic in groups.items():
                asked = [TopicPartition(topic, part) for part in range(self._pipeline.partitions)]
                try:
                    found = readers[name].committed(asked, timeout=2)
                except KafkaException:
                    continue
                at_s = time.time()
                for item in found:
                    if item.error is None and item.offset >= 0:
                        where = f"{topic.removeprefix(self._prefix)}[{item.partition}]"
                        self.progress.append(Progress(at_s, name, where, item.offset))
        for reader in readers.values():
            reader.close()

    def _reader(self, group: str) -> Consumer:
        """A committed reader that joins no group, though it may ask for the group's positions."""
        return Consumer(
            {
                "bootstrap.servers": self._pipeline.bootstrap,
                "group.id": group,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
                "log_level": 0,
                "reconnect.backoff.max.ms": 250,
            }
        )
