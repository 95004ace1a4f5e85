"""The recorded LLM with what a command line or a supervisor asks for, until a signal ends it.

Invariant: the port file appears, whole, only when the server listens; SIGTERM and SIGINT end it
in order.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from pydantic import SecretStr

from metallm_stream.embedded.recorded_llm.faults import Fault, SeededFaults
from metallm_stream.embedded.recorded_llm.latency import Latency
from metallm_stream.embedded.recorded_llm.ledger import Ledger
from metallm_stream.embedded.recorded_llm.recording import Recording, read_recording
from metallm_stream.embedded.recorded_llm.server import RecordedLLM
from metallm_stream.errors import ConfigurationError

Told = Callable[[RecordedLLM, Recording], None]


@dataclass(frozen=True)
class Run:
    """What is served, and how.

    Attributes
    ----------
    recordings
        Files of JSON lines.
    api_key
        The only accepted key; None accepts any that is not empty.
    port, port_file
        Where it listens, 0 for a free port, and the file that is told the port.
    fault_rates
        Probability of each fault by its name.
    ledger_file
        Where each request is appended as a JSON line, if anywhere.
    """

    recordings: tuple[Path, ...]
    api_key: SecretStr | None = None
    port: int = 0
    port_file: Path | None = None
    latency: Latency = field(default_factory=Latency)
    fault_rates: Mapping[str, float] = field(default_factory=dict)
    retry_after_s: float = 1.0
    ledger_file: TextIO | None = None
    seed: int = 0


def run(wanted: Run, told: Told) -> None:
    """Serve until SIGTERM or SIGINT; `told` is called once it listens.

    Raises `ConfigurationError` for files, faults or a port that will not do.
    """
    recording = read_recording(wanted.recordings)
    if not recording.models:
        shown = ", ".join(map(str, wanted.recordings))
        raise ConfigurationError(f"no outcomes in {shown}: there is nothing to answer with")
    server = RecordedLLM(
        recording,
        api_key=wanted.api_key,
        latency=wanted.latency,
        faults=_faults(wanted),
        ledger=Ledger(wanted.ledger_file),
        port=wanted.port,
        retry_after_s=wanted.retry_after_s,
    )
    if wanted.port_file is not None:
        wanted.port_file.unlink(missing_ok=True)  # of an earlier run

    def listens() -> None:
        if wanted.port_file is not None:
            _write_port(wanted.port_file, server.port)
        told(server, recording)

    asyncio.run(_serve(server, listens))


async def _serve(server: RecordedLLM, listens: Callable[[], None]) -> None:
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    try:
        await server.__aenter__()
    except OSError as exc:
        raise ConfigurationError(
            f"port {server.port} cannot be listened on ({exc.strerror}): choose another"
        ) from exc
    try:
        listens()
        await stop.wait()
    finally:
        await server.__aexit__(None, None, None)


def _faults(wanted: Run) -> SeededFaults:
    unknown = sorted(set(wanted.fault_rates) - set(Fault))
    if unknown:
        raise ConfigurationError(f"no fault {unknown[0]!r}; faults: {', '.join(Fault)}")
    rates = {Fault(name): rate for name, rate in wanted.fault_rates.items()}
    return SeededFaults(rates, seed=wanted.seed)


def _write_port(port_file: Path, port: int) -> None:
    fresh = port_file.with_name(f"{port_file.name}.{os.getpid()}")
    fresh.write_text(f"{port}\n", encoding="utf-8")
    fresh.replace(port_file)
