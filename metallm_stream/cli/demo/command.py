"""`metallm demo`: from an empty directory to a proof, in about two minutes.

Invariant: whatever happens (an error, Ctrl-C, SIGTERM), everything that was started is stopped
before the command ends.
"""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from metallm_stream.cli.demo.extra import plots
from metallm_stream.cli.demo.recording import PROMPTS
from metallm_stream.cli.demo.run import Wanted, run
from metallm_stream.cli.interrupts import interrupt_once
from metallm_stream.settings import load

FEWEST = 20
PLAIN_WIDTH = 110


@click.command("demo")
@click.option(
    "--queries",
    type=click.IntRange(FEWEST, PROMPTS),
    default=PROMPTS,
    show_default=True,
    help="How many of the recorded prompts are asked.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/demo"),
    show_default=True,
    help="Where report.json and the pictures go.",
)
@click.option(
    "--rate",
    type=click.FloatRange(1, 2_000),
    default=60.0,
    show_default=True,
    help="Queries a second, at most: users wait while much is under way.",
)
@click.option(
    "--label-fraction",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="The part of the queries that is judged.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the order, the users and the router's draws.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data and logs of the servers, made anew.  [default: OUT/state]",
)
def demo(
    queries: int,
    out: Path,
    rate: float,
    label_fraction: float,
    seed: int,
    state_dir: Path | None,
) -> None:
    """Replay real LLM outcomes through the whole service, and check it from the outside.

    Starts Kafka, PostgreSQL, a recorded LLM vendor, a router, a worker and a learner, asks 3,609
    real prompts, judges a part of the answers late, twice or wrongly at first, and shows what was
    learned, spent and saved. Fails unless every query has exactly one decision and one result,
    every label counts once, and the live model equals the one rebuilt from the log.

    Where KAFKA_BOOTSTRAP_SERVERS or DATABASE_URL is set, that server is used, with topics and a
    database that are removed at the end.
    """
    plots()
    interrupt_once()
    wanted = Wanted(
        queries=queries,
        rate=rate,
        label_fraction=label_fraction,
        seed=seed,
        out=out.absolute(),
        state_dir=(state_dir or out / "state").absolute(),
    )
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    run(wanted, load(), console)
