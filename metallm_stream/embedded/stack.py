"""A real Kafka and a real PostgreSQL as one context manager.

Invariant: inside the ``with`` both servers are ready and stay so (they are restarted on the same
ports after a crash); outside it, nothing of them runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

from metallm_stream.embedded.class_archive import with_archive
from metallm_stream.embedded.downloads import java, kafka_home, kafka_jars
from metallm_stream.embedded.kafka import Broker, Distribution
from metallm_stream.embedded.kafka_cluster import heap_mb, place_brokers
from metallm_stream.embedded.kafka_storage import format_cluster
from metallm_stream.embedded.postgres_place import place_cluster
from metallm_stream.embedded.progress import Listener, Progress, silent
from metallm_stream.embedded.state import StateDirectory
from metallm_stream.embedded.supervisor import Supervisor
from metallm_stream.errors import ConfigurationError

_READY_WITHIN_S = 90.0
_NOT_OURS = (
    "{} may not be read or written: start as the account that used it before, or choose another"
    " state directory"
)


class EmbeddedStack:
    """Kafka and PostgreSQL on this machine, until the ``with`` block ends.

    Parameters
    ----------
    state_dir
        Data, logs, ports and the lock; what an earlier run left there is taken up again.
    bootstrap_servers, database_url
        Servers that are there already: used as they are, and only the missing one is started.
    brokers
        How many Kafka brokers, 1 or 3. Of three that keep a copy each, any one may die without a
        record being lost or the stream standing still for long. ``None``: as many as the
        directory has, and one in a new directory.
    listener
        Told of every step; called from several threads.

    Attributes
    ----------
    bootstrap_servers
        Kafka's address, ``host:port``; those of three brokers with commas between them.
    database_url
        SQLAlchemy's URL of a superuser; holds the password.
    supervisor
        Runs the servers; other processes may be added to it and end with them.

    Raises
    ------
    AlreadyRunning
        On entering, when another process runs the servers of this directory.
    ConfigurationError
        On entering, when a package of the ``embedded`` extra is missing or a download fails.
    ChildFailed
        On entering, when a server does not become ready.

    Examples
    --------
    ::

        with EmbeddedStack(Path("state")) as stack:
            print(stack.bootstrap_servers)
    """

    supervisor: Supervisor

    def __init__(
        self,
        state_dir: Path,
        *,
        bootstrap_servers: str | None = None,
        database_url: str | None = None,
        brokers: int | None = None,
        listener: Listener = silent,
    ) -> None:
        self.state = StateDirectory(Path(state_dir))
        self.bootstrap_servers = bootstrap_servers or ""
        self.database_url = database_url or ""
        self._brokers = brokers
        self._listener = listener
        self._open = ExitStack()

    @property
    def logs(self) -> Path:
        """The directory of the servers' logs; a good place for those of added processes."""
        return self.state.logs

    def __enter__(self) -> Self:
        try:
            with ExitStack() as opening:
                opening.enter_context(self.state)
                self.supervisor = opening.enter_context(
                    Supervisor(held_files=[self.state.lock_file])
                )
                self._background = opening.enter_context(ThreadPoolExecutor(1, "warm-up"))
                self._start()
                self._open = opening.pop_all()
        except PermissionError as exc:
            raise ConfigurationError(_NOT_OURS.format(exc.filename)) from exc
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _start(self) -> None:
        """Start what is missing, both at the same time."""
        missing: list[Callable[[], tuple[str, str]]] = []
        if not self.bootstrap_servers:
            brokers = place_brokers(self.state, self._brokers)
            missing.append(partial(self._start_kafka, brokers))
        if not self.database_url:
            missing.append(self._start_postgres)
        with ThreadPoolExecutor(max(1, len(missing))) as pool:
            running = [pool.submit(start) for start in missing]
            try:
                addresses = dict(started.result() for started in as_completed(running))
            except BaseException:
                self.supervisor.stop()  # so that nobody goes on waiting for the other server
                raise
        self.state.tell(addresses)

    def _start_kafka(self, brokers: Sequence[Broker]) -> tuple[str, str]:
        jars = tuple(kafka_jars(self._listener))
        distribution = with_archive(Distribution(java(), jars, kafka_home()), self._listener)
        self._listener(Progress("Starting Kafka"))
        distribution = replace(distribution, heap_mb=heap_mb(len(brokers)))
        is_new = format_cluster(distribution, brokers)
        started = []
        for broker in brokers:
            command = distribution.serve(broker, self.logs / f"{broker.name}.log")
            started.append(self.supervisor.run(broker.name, command, ready=broker.answers))
        for child in started:
            child.wait_ready(_READY_WITHIN_S)
        if is_new:
            self._background.submit(brokers[0].warm_up)
        self._listener(Progress("Starting Kafka", 1))
        self.bootstrap_servers = ",".join(broker.address for broker in brokers)
        return "Kafka", self.bootstrap_servers

    def _start_postgres(self) -> tuple[str, str]:
        cluster = place_cluster(self.state, self._listener)
        self._listener(Progress("Starting PostgreSQL"))
        cluster.create()
        command = cluster.serve(self.logs / "postgres.log")
        child = self.supervisor.run("postgres", command, ready=cluster.answers)
        child.wait_ready(_READY_WITHIN_S)
        cluster.create_database()
        self._listener(Progress("Starting PostgreSQL", 1))
        self.database_url = cluster.url
        return "PostgreSQL", cluster.address
