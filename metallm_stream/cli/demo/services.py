"""The demo's processes: the recorded vendor, a router, a worker and a learner, each of its own.

Invariant: a process gets the settings of the demo and nothing of the user's own: no key that it
does not need, and no database URL unless it is the learner.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from metallm_stream.cli.demo.recording import Recording
from metallm_stream.cli.entry_points import entry_point, is_ready
from metallm_stream.embedded import Child, EmbeddedStack

PROVIDER = "recorded"
KEY_VARIABLE = "RECORDED_LLM_KEY"
LATENCY_MEAN_S = 0.3
FAULTS = {"server_error": 0.01, "rate_limited": 0.005}
READY_WITHIN_S = 60.0
OURS = ("METALLM_", "KAFKA_", "DATABASE_URL")


@dataclass
class Services:
    """Starts the processes under a stack's supervisor, and stops them.

    Parameters
    ----------
    stack
        The servers; their supervisor runs the processes, and their log directory has the logs.
    settings
        Environment variables for router, worker and learner alike.
    """

    stack: EmbeddedStack
    settings: Mapping[str, str]
    seed: int
    children: list[Child] = field(default_factory=list)

    @property
    def ledger(self) -> Path:
        """The vendor's own book: a JSON line a request."""
        return self.stack.state.path / "ledger.jsonl"

    @property
    def restarts(self) -> int:
        """How often a process ended and was started again."""
        return sum(len(child.exit_codes) for child in self.children)

    def start(self, recording: Recording) -> None:
        """Start all four and return when they are ready.

        Raises
        ------
        ChildFailed
            When one does not become ready; the message has the end of its log.
        """
        key = secrets.token_urlsafe(16)
        port = self.stack.state.ports("recorded-llm")[0]
        self._start_vendor(recording, key, port)
        self._start_service("router", {"METALLM_ROUTER__SEED": str(self.seed)})
        worker = {
            "METALLM_PROVIDERS__RECORDED__BASE_URL": f"http://127.0.0.1:{port}/v1",
            "METALLM_PROVIDERS__RECORDED__API_KEY_ENV": KEY_VARIABLE,
            KEY_VARIABLE: key,
        }
        self._start_service("worker", worker, "--provider", PROVIDER)
        # Its labels are counted by their weights, which must be 1.
        learner = {"DATABASE_URL": self.stack.database_url, "METALLM_LEARNER__DRIFT": "off"}
        self._start_service("learner", learner)
        for child in self.children:
            child.wait_ready(READY_WITHIN_S)

    def stop(self) -> None:
        """Stop them all at the same time; each leaves with its work committed."""
        with ThreadPoolExecutor(max(1, len(self.children))) as pool:
            list(pool.map(Child.stop, self.children))

    def _start_vendor(self, recording: Recording, key: str, port: int) -> None:
        port_file = self.stack.state.path / "recorded-llm.port"
        argv = ["-m", "metallm_stream.cli", "recorded-llm", str(recording.path)]
        argv += ["--port", str(port), "--port-file", str(port_file), "--seed", str(self.seed)]
        argv += ["--latency-mean-s", str(LATENCY_MEAN_S), "--ledger-file", str(self.ledger)]
        for fault, rate in FAULTS.items():
            argv += ["--fault", f"{fault}={rate}"]
        self._add("recorded-llm", argv, {"METALLM_RECORDED_LLM_KEY": key}, port_file.exists)

    def _start_service(self, name: str, settings: Mapping[str, str], *arguments: str) -> None:
        log = self.stack.logs / f"{name}.log"
        argv = [str(entry_point(name)), *arguments]
        self._add(name, argv, {**self.settings, **settings}, lambda: is_ready(log))

    def _add(
        self, name: str, argv: list[str], settings: Mapping[str, str], ready: Callable[[], bool]
    ) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
        child = self.stack.supervisor.add(
            name,
            [sys.executable, *argv],
            {**inherited, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **settings},
            self.stack.logs / f"{name}.log",
            ready=ready,
        )
        self.children.append(child)
