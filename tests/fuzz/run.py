"""Fuzzed records through running services, and what became of each of them.

Invariant: every record is accounted for by what can be seen from the outside: a dead letter with
its position, an ignored record in the log, or its place among what was decided, answered, learned.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from confluent_kafka import Message, TopicPartition

from metallm_stream.encode import load_encoder
from metallm_stream.errors import InvalidEvent
from metallm_stream.events import (
    ArmHealth,
    BudgetAccount,
    Call,
    Event,
    Model,
    PolicyArm,
    PolicyManifest,
    Query,
)
from metallm_stream.kafka import OFFSET, PARTITION, TOPIC, Record, header, write
from metallm_stream.serve.joined import read_joined
from tests.fuzz.mutate import Fuzzer, zeros
from tests.pipeline import ENCODER, Pipeline
from tests.processes import eventually

LEARNED = ("decisions", "results", "feedback", "verdicts")
FOLLOWED = ("models", "policy", "health")
TOPICS = ("queries", "calls", *LEARNED, *FOLLOWED)
IGNORED = re.compile(r"key '(fuzz-\d+)': ignored: ")
OURS = {
    "gpt-4o-mini": "large",
    "mixtral": "small",
    '"provider":"openai"': '"provider":"recorded"',
    '"provider":"together"': '"provider":"recorded"',
}
IDS = 400
Position = tuple[str, int, int]


@dataclass
class Fate:
    """What became of one topic's records."""

    sent: int = 0
    dead: int = 0
    ignored: int = 0
    valid: int = 0
    lost: list[str] = field(default_factory=list)


class Fuzz:
    """One run over a pipeline whose services are running."""

    def __init__(self, pipeline: Pipeline, seed: int) -> None:
        self._pipeline = pipeline
        encoder = load_encoder(ENCODER)
        self._encoder, self._dimensions = encoder.name, encoder.dimensions
        self._fuzzer = Fuzzer(np.random.default_rng(seed), self._fit)
        names = pipeline.names
        self._topics = {
            "queries": names.queries,
            "calls": names.calls("recorded"),
            "decisions": names.decisions,
            "results": names.results,
            "feedback": names.feedback,
            "verdicts": names.verdicts,
            "models": names.models,
            "policy": names.policy,
            "health": names.health,
        }

    def send(self, count: int) -> None:
        """Produce so many records, on all topics in turn."""
        records = []
        for number in range(count):
            kind = TOPICS[number % len(TOPICS)]
            value = self._fuzzer.record(kind, number)
            records.append(Record(self._topics[kind], f"fuzz-{number}".encode(), value))
        for start in range(0, count, 200):
            write(self._pipeline.producer, records[start : start + 200])

    def wait(self, timeout_s: float) -> None:
        """Return when the services have read what was sent."""
        groups = {
            "metallm-router": self._topics["queries"],
            "metallm-worker-recorded": self._topics["calls"],
        }
        for group, topic in groups.items():
            eventually(lambda group=group, topic=topic: self._is_read(group, topic), timeout_s)
        self._pipeline.wait_until_learned(timeout_s)

    def fates(self, timeout_s: float) -> dict[str, Fate]:
        """What became of all records, by topic."""
        dead = self._dead_letters()
        answered = {(m.key() or b"").decode() for m in self._read("results")}
        decided = {(m.key() or b"").decode() for m in self._read("decisions")}
        rows = self._pipeline.sql("SELECT query_id FROM metallm.interactions")
        learned = {str(row["query_id"]) for row in rows}
        fates = {}
        for kind in TOPICS:
            sent = [m for m in self._read(kind) if (m.key() or b"").startswith(b"fuzz-")]
            if kind in FOLLOWED:
                fates[kind] = self._known_or_told(kind, sent, timeout_s)
                continue
            taken = {"queries": decided, "calls": answered}.get(kind, learned)
            fates[kind] = self._dead_or_taken(kind, sent, dead, taken)
        return fates

    def _fit(self, topic: str, number: int, known: dict[str, Any]) -> None:
        """In the terms of this pipeline, so that nothing but the damage is wrong."""
        text = orjson.dumps(known).decode()
        for theirs, ours in OURS.items():
            text = text.replace(theirs, ours)
        known.clear()
        known.update(orjson.loads(text))
        query_id = f"fuzzed-{number % IDS}"
        if topic == "queries":
            known["query_id"] = f"fuzzed-{number}"
        elif topic == "calls":
            known["call_id"] = known["query"]["query_id"] = f"called-{number}"
        elif topic in LEARNED:
            known["query_id"] = query_id
        if topic == "decisions":
            known |= {"encoder": self._encoder, "context": zeros(self._dimensions)}
        elif topic == "models":
            known["arm"] = f"fuzz-{number}"
        elif topic == "policy" and "encoder" in known:
            known["encoder"] = self._encoder

    def _is_read(self, group: str, topic: str) -> bool:
        consumer = self._pipeline.kafka.reader(f"{self._pipeline.names.prefix}{group}")
        try:
            found = consumer.list_topics(topic, timeout=15).topics[topic]
            places = [TopicPartition(topic, partition) for partition in found.partitions]
            committed = {item.partition: item.offset for item in consumer.committed(places, 15)}
        finally:
            consumer.close()
        ends: Counter[int] = Counter()
        for message in self._pipeline.read(topic):
            ends[message.partition() or 0] = (message.offset() or 0) + 1
        return all(committed[partition] >= end for partition, end in ends.items())

    def _read(self, kind: str) -> list[Message]:
        return self._pipeline.read(self._topics[kind])

    def _dead_letters(self) -> set[Position]:
        found = set()
        for kind in ("queries", "calls", *LEARNED):
            for letter in self._pipeline.dead_letters(self._topics[kind]):
                names = (TOPIC, PARTITION, OFFSET)
                topic, partition, offset = [header(letter, name) or b"" for name in names]
                found.add((topic.decode(), int(partition), int(offset)))
        return found

    def _dead_or_taken(
        self, kind: str, sent: Sequence[Message], dead: set[Position], taken: set[str]
    ) -> Fate:
        """A dead letter exactly where the record cannot be read, and else its outcome."""
        fate = Fate(sent=len(sent))
        for message in sent:
            position = (message.topic() or "", message.partition() or 0, message.offset() or 0)
            query_id = self._query_id(kind, message)
            if position in dead and (query_id is None or kind == "queries"):
                fate.dead += 1
            elif query_id is not None and query_id in taken and position not in dead:
                fate.valid += 1
            else:
                fate.lost.append(f"{position}: {(message.value() or b'')[:300]!r}")
        return fate

    def _query_id(self, kind: str, message: Message) -> str | None:
        """The query that a record is about, or None if it cannot be read."""
        try:
            if kind == "queries":
                return Query.parse(message.value()).query_id
            if kind == "calls":
                return Call.parse(message.value()).query.query_id
            event = read_joined(message, self._pipeline.names, self._encoder, self._dimensions)
        except InvalidEvent:
            return None
        return event.query_id

    def _known_or_told(self, kind: str, sent: Sequence[Message], timeout_s: float) -> Fate:
        """Ignored, and said so in the router's log, exactly where the record cannot be read."""
        unreadable = {
            (message.key() or b"").decode() for message in sent if not _readable(kind, message)
        }
        log = self._pipeline.directory / "router-0.log"

        def told() -> set[str]:
            return set(IGNORED.findall(log.read_text()))

        eventually(lambda: unreadable <= told(), timeout_s)
        ignored = {(message.key() or b"").decode() for message in sent} & told()
        return Fate(sent=len(sent), ignored=len(ignored), valid=len(sent) - len(ignored))


def _readable(kind: str, message: Message) -> bool:
    """Whether a router can make something of a record, or has nothing to do with it."""
    value = message.value()
    if value is None:
        return True
    try:
        reader = _reader(kind, value)
        if reader is not None:
            reader(value)
    except (InvalidEvent, orjson.JSONDecodeError, AttributeError):
        return False
    return True


def _reader(kind: str, value: bytes) -> Callable[[bytes], Event] | None:
    """What a router reads a record with, or None if it passes it over."""
    if kind == "models":
        return Model.parse
    said = orjson.loads(value).get("kind")
    if kind == "health":
        return ArmHealth.parse if said == "arm" else None
    if said == "river":
        return None
    readers = {"arm": PolicyArm.parse, "budget": BudgetAccount.parse}
    return readers.get(str(said), PolicyManifest.parse)


def summary(fates: dict[str, Fate]) -> str:
    """A row for each topic."""
    lines = [f"{'topic':10s} {'sent':>6s} {'dead':>6s} {'ignored':>8s} {'valid':>6s} {'lost':>5s}"]
    lines += [
        f"{kind:10s} {f.sent:6d} {f.dead:6d} {f.ignored:8d} {f.valid:6d} {len(f.lost):5d}"
        for kind, f in fates.items()
    ]
    return "\n".join(lines)
