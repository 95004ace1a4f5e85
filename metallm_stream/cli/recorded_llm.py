"""`metallm recorded-llm`: a vendor on this machine that answers from logged outcomes.

Invariant: what it needs beyond the service is imported only when it runs, so that a missing extra
stops no other command.
"""

from __future__ import annotations

import importlib
import os
import shlex
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TextIO

import click
from pydantic import SecretStr

from metallm_stream.cli.numbers import NOT_NEGATIVE, finite
from metallm_stream.errors import ConfigurationError

if TYPE_CHECKING:
    from metallm_stream.embedded.recorded_llm import RecordedLLM, Recording

KEY_VARIABLE = "METALLM_RECORDED_LLM_KEY"
SERVER = "metallm_stream.embedded.recorded_llm.run"


def _rates(
    _context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, float]:
    """Rates by name; which names there are is known to the server."""
    rates = {}
    for value in values:
        name, _, rate = value.partition("=")
        try:
            rates[name] = float(rate)
        except ValueError as exc:
            said = f"{value!r} is no NAME=RATE, such as server_error=0.01"
            raise click.BadParameter(said, param=parameter) from exc
    return rates


@click.command("recorded-llm")
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    help="Where to listen.  [default: a free port]",
)
@click.option(
    "--port-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the port is written once it listens.",
)
@click.option(
    "--latency-mean-s",
    type=NOT_NEGATIVE,
    callback=finite,
    help="Mean of a log-normal latency.  [default: as recorded]",
)
@click.option(
    "--latency-sigma",
    type=NOT_NEGATIVE,
    callback=finite,
    default=0.5,
    show_default=True,
    help="Deviation of the latency's logarithm.",
)
@click.option(
    "--latency-scale",
    type=NOT_NEGATIVE,
    callback=finite,
    default=1.0,
    show_default=True,
    help="Factor on every latency.",
)
@click.option(
    "--fault",
    "faults",
    metavar="NAME=RATE",
    callback=_rates,
    multiple=True,
    help="How often a fault strikes, such as rate_limited=0.01; several may be given.",
)
@click.option(
    "--retry-after-s",
    type=NOT_NEGATIVE,
    callback=finite,
    default=1.0,
    show_default=True,
    help="What rate-limited requests are told to wait.",
)
@click.option(
    "--ledger-file",
    type=click.File("a", encoding="utf-8", lazy=False),
    help="Where each request is appended as a JSON line.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of latencies and faults.")
def recorded_llm(
    files: tuple[Path, ...],
    port: int,
    port_file: Path | None,
    latency_mean_s: float | None,
    latency_sigma: float,
    latency_scale: float,
    faults: dict[str, float],
    retry_after_s: float,
    ledger_file: TextIO | None,
    seed: int,
) -> None:
    """Answer on the vendors' wires from the logged outcomes in FILEs, until Ctrl-C.

    A FILE holds JSON lines, plain or gzip'd: {"text", "labels", "outcomes": {model: {"answer",
    "cost", "input_tokens", "output_tokens", "latency_s"}}}; labels, costs, tokens and latencies
    may be missing. A text or model that was not recorded gets the vendor's kind of 404. Any key
    is accepted, or only METALLM_RECORDED_LLM_KEY where that is set. On the OpenAI wire costs are
    reported in the usage, as OpenRouter does; GET /ledger has the vendor's books.
    """
    server = _server()
    key = os.environ.get(KEY_VARIABLE)
    server.run(
        server.Run(
            recordings=files,
            api_key=SecretStr(key) if key else None,
            port=port,
            port_file=port_file,
            latency=server.Latency(latency_mean_s, latency_sigma, latency_scale, seed),
            fault_rates=faults,
            retry_after_s=retry_after_s,
            ledger_file=ledger_file,
            seed=seed,
        ),
        _tell,
    )


def _server() -> ModuleType:
    try:
        return importlib.import_module(SERVER)
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f"the recorded LLM needs the package {exc.name!r}, which is not installed: "
            "pip install 'metallm-stream[embedded]'"
        ) from exc


def _tell(server: RecordedLLM, recording: Recording) -> None:
    click.echo(f"listening at {server.base_url} · models: {', '.join(recording.models)}")
    click.echo("As a provider, for the worker and for `metallm up --services`:")
    click.echo(f"  export METALLM_PROVIDERS__RECORDED__BASE_URL={server.base_url}")
    if os.environ.get(KEY_VARIABLE):
        click.echo(f"  export METALLM_PROVIDERS__RECORDED__API_KEY_ENV={KEY_VARIABLE}")
    click.echo(f"  metallm models add {shlex.quote(recording.models[0])} --provider recorded")
    click.echo(f"The wires anthropic and bedrock are spoken at {server.address}.")
