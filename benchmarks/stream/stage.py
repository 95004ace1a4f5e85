"""What the benchmarks of the stream play on: a Kafka, vendors, workers and routers as processes.

Run as modules from the repository's root, so that they find each other: `python -m
benchmarks.stream.worker`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, Message, TopicPartition

from metallm_stream.embedded import Child, EmbeddedStack, Supervisor, remove_state
from metallm_stream.events import Model
from metallm_stream.kafka import Connection, Record, TopicNames, create, write
from metallm_stream.postgres.migrate import migrate

REPOSITORY = Path(__file__).parents[2]
KEY = "key-for-benchmarks"
ENCODER = "wordllama:32"
READY_WITHIN_S = 180.0  # on a machine that others use as well


@dataclass
class Stage:
    """Topics under a prefix of their own, and the processes on them.

    `database_url` is that of a migrated PostgreSQL, or empty.
    """

    bootstrap: str
    directory: Path
    supervisor: Supervisor
    providers: Sequence[str]
    partitions: int = 4
    urls: dict[str, str] = field(default_factory=dict)
    database_url: str = ""
    encoder: str = ENCODER

    def __post_init__(self) -> None:
        self.names = TopicNames(f"b{secrets.token_hex(4)}.")
        self.kafka = Connection(self.bootstrap)
        self.producer = self.kafka.producer(linger_ms=0)
        self.admin = self.kafka.admin()
        create(self.admin, self.names, self.providers, partitions=self.partitions)

    def vendor(
        self,
        provider: str,
        outcomes: Mapping[str, Mapping[str, Any]],
        *options: str,
        labels: Sequence[str] = (),
        core: str = "",
    ) -> Child:
        """Start a vendor that answers `{text: {model: outcome}}`, or start it again."""
        recording = self.directory / f"{provider}.jsonl"
        asked = {"labels": list(labels)} if labels else {}
        lines = [
            orjson.dumps({"text": text, "outcomes": known, **asked})
            for text, known in outcomes.items()
        ]
        recording.write_bytes(b"\n".join(lines))
        port_file = self.directory / f"{provider}.port"
        argv = [*_pinned(core), sys.executable, "-m", "metallm_stream.cli", "recorded-llm"]
        argv += [str(recording), "--port-file", str(port_file), *options]
        log = self.directory / f"{provider}.log"
        environment = self._environment() | {"METALLM_RECORDED_LLM_KEY": KEY}
        child = self.supervisor.add(
            f"vendor-{provider}", argv, environment, log, ready=port_file.exists
        )
        child.wait_ready(READY_WITHIN_S)
        self.urls[provider] = f"http://127.0.0.1:{port_file.read_text().strip()}/v1"
        return child

    def start(
        self, service: str, *arguments: str, core: str = "", slot: str = "0", **settings: str
    ) -> Child:
        """Start a service; `settings` are METALLM_* variables without the prefix."""
        environment = self._environment() | {"METALLM_SLOT": slot}
        for provider, url in self.urls.items():
            name = f"METALLM_PROVIDERS__{provider.upper()}__"
            environment |= {f"{name}BASE_URL": url, f"{name}API_KEY_ENV": "VENDOR_KEY"}
        environment |= {f"METALLM_{name}": value for name, value in settings.items()}
        environment["VENDOR_KEY"] = KEY
        name = "-".join((service, *arguments[1:], *([slot] if slot != "0" else [])))
        log = self.directory / f"{name}.log"
        argv = [*_pinned(core), sys.executable, str(REPOSITORY / "services" / f"{service}.py")]
        child = self.supervisor.add(
            name, [*argv, *arguments], environment, log, ready=lambda: _is_ready(log)
        )
        child.wait_ready(READY_WITHIN_S)
        return child

    def add_models(self, models: Sequence[Model]) -> None:
        """Put arms into the catalogue."""
        write(self.producer, [Record.of(self.names.models, one.arm, one) for one in models])

    @contextmanager
    def reader(self, topic: str) -> Iterator[Consumer]:
        """A consumer of all that is committed to a topic, from its start."""
        consumer = self.kafka.reader("benchmark")
        found = consumer.list_topics(topic, timeout=15).topics[topic]
        consumer.assign([TopicPartition(topic, partition, 0) for partition in found.partitions])
        try:
            yield consumer
        finally:
            consumer.close()

    def read(
        self, consumer: Consumer, count: int, seen: Callable[[Message], None], within_s: float
    ) -> None:
        """Show `count` records to `seen` as they come; fail if they do not come."""
        read, deadline = 0, time.monotonic() + within_s
        while read < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {read} of {count} records came within {within_s:.0f} s")
            for message in consumer.consume(500, 0.01):
                if message.error() is None:
                    seen(message)
                    read += 1

    def delete_topics(self) -> None:
        """Leave the cluster as it was."""
        for deleted in self.admin.delete_topics(self.names.all(self.providers)).values():
            deleted.result(15)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "METALLM_TOPICS__PREFIX": self.names.prefix,
            "METALLM_ENCODER": self.encoder,
            **({"DATABASE_URL": self.database_url} if self.database_url else {}),
        }


@contextmanager
def open_stage(
    *providers: str, learns: bool = False, brokers: int = 1, partitions: int = 4
) -> Iterator[Stage]:
    """A stage on an embedded Kafka, or on the one of KAFKA_BOOTSTRAP_SERVERS; gone at the end.

    If it `learns`, it has a migrated PostgreSQL as well: an embedded one.
    """
    with ExitStack() as opened:
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o711)  # PostgreSQL's account passes through, if we are root
        servers = EmbeddedStack(
            directory / "state",
            bootstrap_servers=os.environ.get("KAFKA_BOOTSTRAP_SERVERS"),
            # Where nobody learns, none is started.
            database_url=None if learns else "postgresql://none",
            brokers=brokers,
        )
        opened.callback(remove_state, directory / "state")
        opened.enter_context(servers)
        address = servers.bootstrap_servers
        stage = Stage(address, directory, servers.supervisor, providers, partitions)
        if learns:
            stage.database_url = servers.database_url
            migrate(stage.database_url)
        yield stage
        servers.supervisor.stop()


def cpu_s(child: Child) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tree_cpu_s(child: Child) -> float:
    """Processor time of a process and of its children, those that have ended included."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except FileNotFoundError:
            continue  # ended meanwhile
        if child.pid == int(stat.parent.name):
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == child.pid:
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(child: Child) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def stored_bytes(state: Path, topic: str) -> int:
    """What the embedded broker of a state directory has stored of a topic."""
    logs = (state / "kafka" / "log").glob(f"{topic}-[0-9]*/*.log")
    return sum(log.stat().st_size for log in logs)


def _pinned(core: str) -> list[str]:
    return ["taskset", "-c", core] if core and shutil.which("taskset") else []


def _is_ready(log: Path) -> bool:
    return log.exists() and "is ready" in log.read_text()
