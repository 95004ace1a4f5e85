"""A whole pipeline for tests: topics and database of its own, services as processes.

The servers come from the session's fixtures; the services are started, supervised and killed as
a user's would be, and everything that a test asserts is read from the outside.
"""

from __future__ import annotations

import functools
import itertools
import os
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import orjson
from confluent_kafka import Consumer, Message, TopicPartition
from pydantic import SecretStr
from sqlalchemy import NullPool, create_engine, make_url, text

from metallm_stream.embedded import Child, Supervisor
from metallm_stream.encode import Encoder, load_encoder
from metallm_stream.events import Call, Decision, Feedback, Model, Query, Result
from metallm_stream.kafka import (
    Connection,
    Record,
    TopicNames,
    create,
    partition_of,
    to_end,
    write,
)
from metallm_stream.postgres import open_engine
from metallm_stream.postgres.migrate import migrate
from metallm_stream.serve.rebuild import Rebuilt, rebuild, rebuild_from_log
from tests.processes import eventually

REPOSITORY = Path(__file__).parents[1]
ENCODER = "wordllama:32"
KEY = "recorded-key-for-tests"
LABELS = ("yes", "no")
GARBAGE = b"garbage"
CHECKOUT = os.environ.get("PYTHONPATH", "")  # of a checkout that is not installed


@contextmanager
def fresh_database(database_url: str) -> Iterator[str]:
    """URL of a database without any tables, dropped afterwards."""
    name = f"test_{secrets.token_hex(8)}"
    admin = create_engine(database_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as conn:
        conn.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
    yield make_url(database_url).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as conn:
        conn.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def open_pipeline(bootstrap: str, database_url: str, directory: Path) -> Iterator[Pipeline]:
    """A pipeline on topics and a migrated database of its own; no service runs yet."""
    prefix = f"t{secrets.token_hex(4)}."
    with fresh_database(database_url) as url:
        migrate(url)
        with Pipeline(bootstrap, url, prefix, directory) as pipeline:
            yield pipeline


class Pipeline:
    """One prefix of topics, one database, and the services on them."""

    def __init__(
        self,
        bootstrap: str,
        database_url: str,
        prefix: str,
        directory: Path,
        *,
        partitions: int = 2,
    ) -> None:
        self.names = TopicNames(prefix)
        self.partitions = partitions
        self._probes = itertools.count(1_000_000)
        self.directory = directory
        self.database_url = database_url
        self.bootstrap = bootstrap
        self.kafka = Connection(bootstrap)
        self.engine = open_engine(SecretStr(database_url), application_name="test")
        self.supervisor = Supervisor()
        self.producer = self.kafka.producer()
        create(
            self.kafka.admin(),
            self.names,
            ("recorded",),
            partitions=partitions,
            replication_factor=1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.supervisor.stop()
        self.engine.dispose()
        topics = self.names.all(("recorded",))
        admin = self.kafka.admin()
        for made in admin.delete_topics(topics).values():
            made.result(15)

    # Services.

    def record(
        self,
        outcomes: Mapping[str, Mapping[str, dict[str, object]]],
        *options: str,
        labels: Sequence[str] | None = None,
        key: str = KEY,
        arms: Iterable[str] | None = None,
    ) -> None:
        """Start a vendor that answers `{text: {model: {answer, cost, ...}}}`.

        Its models, or those named as `arms`, come into the catalogue. With an empty `key` it takes
        any.
        """
        recording = self.directory / "recording.jsonl"
        lines = [
            {"text": key, "labels": labels, "outcomes": value} for key, value in outcomes.items()
        ]
        recording.write_bytes(b"\n".join(map(orjson.dumps, lines)))
        port_file = self.directory / "port"
        argv = [sys.executable, "-m", "metallm_stream.cli", "recorded-llm", str(recording)]
        argv += ["--port-file", str(port_file)]
        argv += ["--latency-mean-s", "0.02", *options]
        child = self.supervisor.add(
            "recorded",
            argv,
            {"PATH": "", "METALLM_RECORDED_LLM_KEY": key, "PYTHONPATH": CHECKOUT},
            self.directory / "recorded.log",
            ready=port_file.exists,
        )
        child.wait_ready(30)
        self.vendor_url = f"http://127.0.0.1:{port_file.read_text().strip()}/v1"
        known = {model for value in outcomes.values() for model in value}
        self.add_models(sorted(known if arms is None else arms))

    def add_models(self, models: Iterable[str]) -> None:
        """Put models of the recorded vendor into the catalogue."""
        records = [Model(arm=name, provider="recorded", model=name) for name in models]
        write(self.producer, [Record.of(self.names.models, item.arm, item) for item in records])

    def start(
        self,
        service: str,
        *arguments: str,
        slot: str = "0",
        restart: bool = True,
        plain: Mapping[str, str] | None = None,
        **settings: str,
    ) -> Child:
        """Start one service as a process; `settings` are METALLM_* variables without the prefix.

        Variables in `plain` have their whole names.
        """
        environment = {
            "PATH": "",
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONPATH": CHECKOUT,
            "PYTHONWARNINGS": "error",
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "METALLM_TOPICS__PREFIX": self.names.prefix,
            "METALLM_SLOT": slot,
            "METALLM_ENCODER": ENCODER,
            "OMP_NUM_THREADS": "1",
        }
        if service == "learner":
            environment["DATABASE_URL"] = self.database_url
        if service in ("worker", "judge"):
            environment["METALLM_PROVIDERS__RECORDED__BASE_URL"] = self.vendor_url
            environment["METALLM_PROVIDERS__RECORDED__API_KEY_ENV"] = "RECORDED_KEY"
            environment["RECORDED_KEY"] = KEY
        environment |= {f"METALLM_{name}": value for name, value in settings.items()}
        environment |= plain or {}
        log = self.directory / f"{service}-{slot}.log"
        return self.supervisor.add(
            f"{service}-{slot}",
            [sys.executable, str(REPOSITORY / "services" / f"{service}.py"), *arguments],
            environment,
            log,
            ready=lambda: log.exists() and "is ready" in log.read_text(),
            restart=restart,
        )

    def start_all(self, **settings: str) -> dict[str, Child]:
        """Start router, worker and learner, and wait until they are ready."""
        children = {
            "router": self.start("router", **settings),
            "worker": self.start("worker", "--provider", "recorded", **settings),
            "learner": self.start("learner", **settings),
        }
        for child in children.values():
            child.wait_ready(60)
        return children

    # What users do.

    def ask(self, *queries: Query) -> None:
        """Produce queries."""
        write(
            self.producer,
            [Record.of(self.names.queries, query.query_id, query) for query in queries],
        )

    def probe(self) -> tuple[Decision, Call]:
        """Ask one query more, and return how it was decided and called once it has its result."""
        query = questions(1, next(self._probes))[0]
        self.ask(query)
        eventually(lambda: query.query_id in self.results())
        topics = self.names.decisions, self.names.calls("recorded")
        decisions, calls = (self.read(topic) for topic in topics)
        made = (Decision.parse(item.value()) for item in decisions)
        called = (Call.parse(item.value()) for item in calls)
        return (
            next(item for item in made if item.query_id == query.query_id),
            next(item for item in called if item.query.query_id == query.query_id),
        )

    def wait_until_routed_among(self, *arms: str) -> None:
        """Return when the router chooses among these arms, as a change of `models` makes it."""
        eventually(lambda: {item.arm for item in self.probe()[0].candidates} == set(arms))

    def judge(self, *judgements: Feedback) -> None:
        """Produce feedback."""
        write(
            self.producer,
            [Record.of(self.names.feedback, item.query_id, item) for item in judgements],
        )

    def produce(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Produce one record as it is."""
        write(self.producer, [Record(topic, key, value)])

    # What users see.

    def read(self, topic: str) -> list[Message]:
        """All committed records of a topic."""
        consumer = self.kafka.reader("stranger")
        try:
            starts = self._starts(consumer, topic)
            consumer.assign(starts)
            return list(to_end(consumer, starts, 60))
        finally:
            consumer.close()

    def results(self) -> dict[str, Result]:
        """Result by query_id; fails if a query has two."""
        found: dict[str, Result] = {}
        for message in self.read(self.names.results):
            if message.key() == GARBAGE:
                continue
            result = Result.parse(message.value())
            assert result.query_id not in found, f"{result.query_id} has two results"
            found[result.query_id] = result
        return found

    def wait_for_results(self, count: int, timeout_s: float = 60) -> dict[str, Result]:
        """All results once there are `count`."""
        self.wait_for_records(self.names.results, count, timeout_s)
        return self.results()

    def wait_for_records(self, topic: str, count: int, timeout_s: float = 60) -> None:
        """Return once a topic has `count` committed records."""
        consumer = self.kafka.reader("stranger")
        seen = 0
        try:
            consumer.assign(self._starts(consumer, topic))
            deadline = time.monotonic() + timeout_s
            while seen < count:
                assert time.monotonic() < deadline, f"{seen} of {count} in {topic}: {self.logs()}"
                seen += sum(item.error() is None for item in consumer.consume(500, 0.2))
        finally:
            consumer.close()

    def dead_letters(self, topic: str) -> list[Message]:
        """What could not be read of a topic."""
        return self.read(self.names.dead_letters(topic))

    def sql(self, statement: str, **parameters: object) -> Sequence[Mapping[str, object]]:
        """Rows of a statement."""
        with self.engine.connect() as conn:
            return [dict(row) for row in conn.execute(text(statement), parameters).mappings()]

    def wait_until_learned(self, timeout_s: float = 60) -> None:
        """Return when the learner has read everything that was committed before."""
        dead = [topic for topic in self.names.all(("recorded",)) if topic.endswith(".dlq")]
        topics = (*self.names.joined, *dead)
        ends = {(topic, partition): end for topic in topics for partition, end in self._ends(topic)}

        def is_done() -> bool:
            rows = self.sql("SELECT topic, partition, next_offset FROM metallm.offsets")
            reached = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
            return all(end <= int(str(reached.get(key, 0))) for key, end in ends.items())

        try:
            eventually(is_done, timeout_s)
        except AssertionError as exc:
            raise AssertionError(f"the learner has not read to {ends}: {self.logs()}") from exc

    def rebuilt(self, *, from_log: bool = False) -> Rebuilt:
        """The model computed anew beside the live one."""
        encoder = _encoder()
        if from_log:
            return rebuild_from_log(
                self.engine, self.kafka, self.names, encoder.name, encoder.dimensions
            )
        return rebuild(self.engine, encoder.name, encoder.dimensions)

    def assert_sound(self, query_ids: Iterable[str]) -> None:
        """Nothing lost, nothing doubled, and the live model is the rebuilt one."""
        wanted = Counter(dict.fromkeys(query_ids, 1))
        for topic in (self.names.decisions, self.names.results):
            seen = Counter((message.key() or b"").decode() for message in self.read(topic))
            assert seen == wanted, f"{topic}: lost {wanted - seen}, doubled {seen - wanted}"
        for from_log in (False, True):
            rebuilt = self.rebuilt(from_log=from_log)
            assert rebuilt.max_relative_difference <= 1e-9

    def logs(self, lines: int = 5) -> str:
        """The last lines of every log, for messages of failed tests."""
        tails = [
            f"{path.name}: " + " | ".join(path.read_text().splitlines()[-lines:])
            for path in sorted(self.directory.glob("*.log"))
        ]
        return "\n".join(tails)

    def _starts(self, consumer: Consumer, topic: str) -> list[TopicPartition]:
        """Where each partition begins; a broker without time may leave some out of its list."""
        listed: set[int] = set()
        expected = 1 if topic in self.names.compacted else self.partitions

        def are_all() -> bool:
            listed.update(consumer.list_topics(topic, timeout=15).topics[topic].partitions)
            return len(listed) >= expected

        eventually(are_all)
        return [TopicPartition(topic, partition, 0) for partition in sorted(listed)]

    def _ends(self, topic: str) -> list[tuple[int, int]]:
        """One past the last committed record of each partition that has any."""
        last: dict[int, int] = {}
        for message in self.read(topic):
            offset = message.offset()
            assert offset is not None
            last[partition_of(message)[1]] = offset + 1
        return sorted(last.items())


@functools.cache
def _encoder() -> Encoder:
    return load_encoder(ENCODER)


def kill(child: Child) -> None:
    """SIGKILL a running child; its supervisor starts it again."""
    pid = child.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def questions(count: int, start: int = 0) -> list[Query]:
    """Queries with the labels yes and no; the right answer is always yes."""
    return [
        Query(
            query_id=f"q{number}",
            text=f"Question {number} about {'sums' if number % 2 else 'poems'}: is it so?",
            labels=LABELS,
            task="sums" if number % 2 else "poems",
        )
        for number in range(start, start + count)
    ]


def outcomes(queries: list[Query]) -> dict[str, dict[str, dict[str, object]]]:
    """`large` is always right; `small` costs a tenth and knows only sums."""
    return {
        query.text: {
            "large": {"answer": "yes", "cost": 0.01},
            "small": {"answer": "yes" if query.task == "sums" else "no", "cost": 0.001},
        }
        for query in queries
    }
