"""The services of one schedule as real processes, and what is done to them.

Invariant: every fault is written down with its time, and ends: what was stopped goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from metallm_stream.embedded import Child, ChildFailed
from metallm_stream.embedded.ports import free_port
from metallm_stream.postgres.migrate import migrate
from tests.chaos.checker import Event
from tests.chaos.faults import SLOTS, Fault, Schedule
from tests.chaos.proxy import Proxy
from tests.chaos.servers import Servers
from tests.chaos.traffic import ARMS, JUDGE, recording
from tests.pipeline import Pipeline, fresh_database

PARTITIONS = 4
READY_WITHIN_S = 90.0
DELAY_S = 0.2
_TAIL_LINES = 60
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}
_CALLS = {"WORKER__ATTEMPT_TIMEOUT_S": "3", "WORKER__BACKOFF_S": "0.05"}
# One budget binds, and is a matter of its own for each team; every free text is judged.
_ALL = {
    "BUDGETS__ALL__AMOUNT_USD": "0.005",
    "BUDGETS__TEAMS__AMOUNT_USD": "10",
    "BUDGETS__TEAMS__PER": "day",
    "BUDGETS__TEAMS__METADATA_KEY": "team",
    "JUDGE__PROVIDER": "recorded",
    "JUDGE__MODEL": JUDGE,
    "JUDGE__SPEND_CAP_USD": "100",
    "JUDGE__INPUT_USD_PER_MTOK": "1",
    "JUDGE__OUTPUT_USD_PER_MTOK": "1",
    "JUDGE__SHARE": "1",
}


class Stage:
    """The services on topics and a database of their own.

    Attributes
    ----------
    events
        All that was done, for people; `struck` has when each fault began.
    ledger
        The file of the vendor's book.
    """

    def __init__(self, servers: Servers, pipeline: Pipeline, schedule: Schedule) -> None:
        self.servers = servers
        self.pipeline = pipeline
        self.schedule = schedule
        self.ledger = pipeline.directory / "ledger"
        self.events: list[Event] = []
        self.struck: list[tuple[float, Fault]] = []
        self._children: dict[str, Child] = {}
        self._stopped: dict[str, list[int]] = {}
        self._timers: list[threading.Timer] = []

    def start(self, queries: int) -> None:
        """Start the vendor and two replicas of each service; returns when all are ready."""
        for service in ("router", "learner"):
            for slot in SLOTS:
                self._start(service, slot)
        faults = [f"--fault={name}={rate}" for name, rate in self.schedule.vendor]
        port = f"--port={free_port()}"  # the same after a restart
        books = ("--ledger-file", str(self.ledger), "--retry-after-s", "0.1")
        seed = f"--seed={self.schedule.seed}"
        self.pipeline.record(recording(queries), *faults, port, *books, seed, arms=ARMS)
        self._children["vendor"] = self.pipeline.supervisor.children["recorded"]
        for service in ("worker", "judge"):
            for slot in SLOTS:
                self._start(service, slot)
        for child in tuple(self._children.values()):
            child.wait_ready(READY_WITHIN_S)

    def strike(self, fault: Fault) -> None:
        """Begin a fault; one that lasts ends by itself."""
        self.struck.append((time.time(), fault))
        self._note(str(fault))
        if fault.kind in ("reset", "delay", "freeze", "cut"):
            self._break(fault)
        elif fault.kind == "join":
            self._start(*fault.victim.split("-"))
        elif fault.kind == "backend":
            self._signal(self.servers.pids("postgres")[-1:], signal.SIGKILL)
        elif fault.kind == "term" and fault.victim == "postgres":
            self._signal(self._pids(fault)[:1], signal.SIGINT)  # SIGTERM waits for its clients
        else:
            self._signal(self._pids(fault), _SIGNALS[fault.kind])
        if fault.lasts_s:
            timer = threading.Timer(fault.lasts_s, self._end, [fault])
            self._timers.append(timer)
            timer.start()

    def settle(self) -> list[str]:
        """Wait until every fault has ended and everything runs again; what does not come back."""
        for timer in self._timers:
            timer.join()
        self.servers.settle()
        return [name for name, child in self._children.items() if not self._runs(name, child)]

    def close(self) -> None:
        """End all services at the same time."""
        with ThreadPoolExecutor(len(self._children) or 1) as pool:
            list(pool.map(Child.stop, self._children.values()))

    def tails(self) -> str:
        """What the services are doing, and the last lines of their logs."""
        for name, child in self._children.items():
            if name != "vendor" and child.pid is not None:
                self._signal([child.pid], signal.SIGABRT)  # has Python tell where it is
        self.close()
        told = []
        for path in sorted(self.pipeline.directory.glob("*.log")):
            lines = [line for line in path.read_text().splitlines() if "|FAIL|" not in line]
            told.append("\n    ".join([path.name, *lines[-_TAIL_LINES:]]))
        return "\n".join(told)

    def _runs(self, name: str, child: Child) -> bool:
        """Whether a child is ready, within a time, or has left for good."""
        if child.is_over:
            return os.EX_CONFIG not in child.exit_codes[-1:]
        try:
            child.wait_ready(READY_WITHIN_S)
        except ChildFailed:
            return False
        self._note(f"{name} runs")
        return True

    def _start(self, service: str, slot: str) -> Child:
        arguments = ("--provider", "recorded") if service == "worker" else ()
        settings = _ALL | _CALLS
        plain = {"OPENBLAS_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        if self.schedule.is_proxied and self.servers.kafka_proxy is not None:
            plain["KAFKA_BOOTSTRAP_SERVERS"] = f"127.0.0.1:{self.servers.kafka_proxy.port}"
            if service == "learner":
                plain["DATABASE_URL"] = self.servers.proxied_url(self.pipeline.database_url)
        child = self.pipeline.start(service, *arguments, slot=slot, plain=plain, **settings)
        self._children[f"{service}-{slot}"] = child
        return child

    def _proxy(self, fault: Fault) -> Proxy:
        servers = self.servers
        found = servers.kafka_proxy if fault.victim == "to-kafka" else servers.postgres_proxy
        assert found is not None
        return found

    def _break(self, fault: Fault) -> None:
        proxy = self._proxy(fault)
        if fault.kind == "reset":
            proxy.reset()
        elif fault.kind == "delay":
            proxy.delay(DELAY_S)
        elif fault.kind == "freeze":
            proxy.freeze()
        else:
            proxy.cut()

    def _end(self, fault: Fault) -> None:
        told = ""
        if fault.kind == "join":
            self._children[fault.victim].stop()
        elif fault.kind == "stop":
            self._signal(self._stopped.pop(fault.victim, []), signal.SIGCONT)
        else:
            proxy = self._proxy(fault)
            proxy.heal()
            told = f", {proxy.cuts} commits were cut so far" if fault.kind == "cut" else ""
        self._note(f"end of {fault}{told}")

    def _pids(self, fault: Fault) -> list[int]:
        if fault.victim in ("kafka", "postgres"):
            pids = self.servers.pids(fault.victim)
            pids = pids if fault.kind == "stop" else pids[:1]
        else:
            pid = self._children[fault.victim].pid
            pids = [] if pid is None else [pid]
        if fault.kind == "stop":
            self._stopped[fault.victim] = pids
        return pids

    def _signal(self, pids: list[int], number: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if not pids:
            self._note("nobody was there")

    def _note(self, what: str) -> None:
        self.events.append(Event(time.time(), what))


@contextmanager
def open_stage(servers: Servers, schedule: Schedule, directory: Path) -> Iterator[Stage]:
    """A stage without services yet; topics and database are gone at the end."""
    prefix = f"c{schedule.seed}-{os.getpid()}."
    with fresh_database(servers.database_url) as url:
        migrate(url)
        arguments = (servers.bootstrap, url, prefix, directory)
        with Pipeline(*arguments, partitions=PARTITIONS) as pipeline:
            stage = Stage(servers, pipeline, schedule)
            yield stage
            stage.close()
