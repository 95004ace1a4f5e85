"""`python -m metallm_stream.embedded.recorded_llm`: the recorded LLM as a process of its own.

Invariant: the port file appears, whole, only when the server listens; SIGTERM and SIGINT end it
with exit code 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import SecretStr

from metallm_stream.embedded.recorded_llm.faults import Fault, SeededFaults
from metallm_stream.embedded.recorded_llm.latency import Latency
from metallm_stream.embedded.recorded_llm.ledger import Ledger
from metallm_stream.embedded.recorded_llm.recording import read_recording
from metallm_stream.embedded.recorded_llm.server import RecordedLLM
from metallm_stream.errors import ConfigurationError

KEY_VARIABLE = "METALLM_RECORDED_LLM_KEY"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; 2 for arguments or files that do not fit."""
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_serve(options))
    except ConfigurationError as exc:
        sys.stderr.write(f"recorded_llm: {exc}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m metallm_stream.embedded.recorded_llm",
        description="Answer on the OpenAI chat wire from logged outcomes of real models.",
        epilog=f"Any non-empty Bearer key is accepted, or only ${KEY_VARIABLE} where it is set.",
    )
    add = parser.add_argument
    add("--recording", type=Path, action="append", required=True, help="JSON lines; repeatable")
    add("--port-file", type=Path, help="where the port is written once it listens")
    add("--port", type=int, default=0, help="where to listen; default: a free port")
    add("--latency-mean-s", type=float, help="log-normal latency; default: as recorded")
    add("--latency-sigma", type=float, default=0.5, help="deviation of the latency's logarithm")
    add("--latency-scale", type=float, default=1.0, help="factor on every latency")
    add("--fault", type=_rate, action="append", default=[], help="FAULT=RATE; repeatable")
    add("--retry-after-s", type=float, default=1.0, help="what rate-limited requests are told")
    add("--ledger-file", type=Path, help="where each request is appended as a JSON line")
    add("--seed", type=int, default=0, help="of latencies and faults")
    return parser


def _rate(text: str) -> tuple[Fault, float]:
    name, _, rate = text.partition("=")
    try:
        return Fault(name), float(rate)
    except ValueError as exc:
        known = ", ".join(Fault)
        raise argparse.ArgumentTypeError(f"{text!r} is no FAULT=RATE; faults: {known}") from exc


async def _serve(options: argparse.Namespace) -> int:
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    key = os.environ.get(KEY_VARIABLE)
    if options.port_file is not None:
        options.port_file.unlink(missing_ok=True)  # of an earlier run
    with contextlib.ExitStack() as files:
        ledger_file = (
            files.enter_context(options.ledger_file.open("a", encoding="utf-8"))
            if options.ledger_file is not None
            else None
        )
        server = RecordedLLM(
            read_recording(options.recording),
            api_key=SecretStr(key) if key else None,
            latency=Latency(
                options.latency_mean_s, options.latency_sigma, options.latency_scale, options.seed
            ),
            faults=SeededFaults(dict(options.fault), seed=options.seed),
            ledger=Ledger(ledger_file),
            port=options.port,
            retry_after_s=options.retry_after_s,
        )
        async with server:
            _announce(server, options.port_file)
            await stop.wait()
    return 0


def _announce(server: RecordedLLM, port_file: Path | None) -> None:
    if port_file is not None:
        fresh = port_file.with_name(f"{port_file.name}.{os.getpid()}")
        fresh.write_text(f"{server.port}\n", encoding="utf-8")
        fresh.replace(port_file)
    sys.stderr.write(f"recorded_llm: listening at {server.base_url}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
