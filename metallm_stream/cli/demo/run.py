"""A run of the demo, stage by stage: record, set up, drive, check, show, draw.

Invariant: a report that stands in the directory is this run's. It is written whenever the stream
came to its end, also if a check failed; the run then ends with an error that says which.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from metallm_stream.cli.demo.books import Books, Rebuild, read_ledger, read_rows
from metallm_stream.cli.demo.checks import count, violations
from metallm_stream.cli.demo.drive import DemoFailed, Driven, drive
from metallm_stream.cli.demo.extra import plots
from metallm_stream.cli.demo.figures import evaluate
from metallm_stream.cli.demo.recording import Recording, fetch, record
from metallm_stream.cli.demo.report import Run, settings_of, versions, write_report
from metallm_stream.cli.demo.schedule import schedule
from metallm_stream.cli.demo.services import PROVIDER
from metallm_stream.cli.demo.show import StreamBars, show_run, show_sql
from metallm_stream.cli.demo.stage import COST_WEIGHT, Stage, add_models, stage
from metallm_stream.cli.demo.stranger import read_log
from metallm_stream.cli.up import StepBars
from metallm_stream.encode import load_encoder
from metallm_stream.serve.rebuild import rebuild, rebuild_from_log
from metallm_stream.settings import Settings

REPORT = "report.json"


@dataclass(frozen=True)
class Wanted:
    """What was asked for; `rate` is queries a second."""

    queries: int
    rate: float
    label_fraction: float
    seed: int
    out: Path
    state_dir: Path


@dataclass
class Stages:
    """Says what is being done, and notes how long it took."""

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def doing(self, name: str, said: str) -> Iterator[None]:
        """One stage."""
        self.console.print(f"[bold cyan]▸[/] {said}", highlight=False)
        began_s = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began_s


def run(wanted: Wanted, settings: Settings, console: Console) -> None:
    """Run the demo from its first stage to its last.

    Raises
    ------
    DemoFailed
        When the stream does not come to its end, or a check fails.
    MetallmError
        When something that is needed cannot be had.
    """
    stages, drawing = Stages(console), plots()
    _clear(wanted.out, (REPORT, *drawing.PICTURES))
    with stages.doing("recording", "Getting 3,609 real prompts with three models' outcomes"):
        path = wanted.out / "recording.jsonl"
        recording = record(fetch(), path, queries=wanted.queries, seed=wanted.seed)
    with ExitStack() as opened:
        with stages.doing("servers", "Starting Kafka and PostgreSQL"), StepBars(console) as bars:
            here = opened.enter_context(stage(settings, wanted.state_dir, wanted.seed, bars.tell))
        driven = _stream(here, recording, wanted, stages)
        with stages.doing("checks", "Reading all topics as a stranger, and rebuilding the model"):
            seen = _check(here, recording, wanted, driven, stages)
        show_run(console, seen)
        show_sql(console, here.engine, recording.query_ids[-1])
        with stages.doing("stop", "Stopping the servers"):
            opened.close()
    with stages.doing("pictures", "Drawing"):
        drawn = drawing.plot(seen.stream, wanted.out)
    write_report(seen, wanted.out / REPORT)
    _tell_files(console, [wanted.out / REPORT, *drawn], stages)
    if seen.violations:
        raise DemoFailed("the checks found:\n  " + "\n  ".join(seen.violations))
    console.print("[bold green]Nothing lost, nothing doubled, live model = rebuilt model.[/]")


def _clear(directory: Path, names: Iterable[str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).unlink(missing_ok=True)


def _stream(here: Stage, recording: Recording, wanted: Wanted, stages: Stages) -> Driven:
    with stages.doing("services", "Starting vendor, router, worker and learner"):
        add_models(here, recording)
        here.services.start(recording)
    plan = schedule(len(recording), wanted.label_fraction, wanted.seed)
    said = f"{len(recording):,} queries, {wanted.rate:g} a second at most"
    with (
        stages.doing("stream", said),
        StreamBars(stages.console, len(recording), int(plan.labelled.sum())) as bars,
    ):
        driven = drive(here, recording, plan, wanted.rate, bars.show)
    with stages.doing("leave", "Stopping the services"):
        here.services.stop()
    return driven


def _check(
    here: Stage, recording: Recording, wanted: Wanted, driven: Driven, stages: Stages
) -> Run:
    log = read_log(here.kafka, here.names, PROVIDER)
    books = _books(here)
    return Run(
        settings=settings_of(
            queries=wanted.queries,
            rate=wanted.rate,
            label_fraction=wanted.label_fraction,
            seed=wanted.seed,
            encoder=here.encoder,
        ),
        versions=versions(here.engine, is_embedded=here.is_embedded),
        counts=count(log, books, recording.query_ids),
        ledger=books.ledger,
        rebuild=books.rebuild,
        stream=evaluate(log, recording, COST_WEIGHT),
        driven=driven,
        stages_s=stages.seconds,
        violations=violations(log, books, recording.query_ids),
    )


def _books(here: Stage) -> Books:
    engine, encoder = here.engine, load_encoder(here.encoder)
    identity = encoder.name, encoder.dimensions
    from_rows = rebuild(engine, *identity)
    from_log = rebuild_from_log(engine, here.kafka, here.names, *identity)
    rows, next_offsets = read_rows(engine)
    return Books(
        rows=rows,
        next_offsets=next_offsets,
        ledger=read_ledger(here.services.ledger),
        labels_in_model=sum(map(from_rows.live.observations, from_rows.live.arms)),
        rebuild=Rebuild(from_rows.max_relative_difference, from_log.max_relative_difference),
    )


def _tell_files(console: Console, files: list[Path], stages: Stages) -> None:
    console.print()
    for file in files:
        console.print(f"  {file}", highlight=False, soft_wrap=True)
    spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in stages.seconds.items())
    console.print(f"Seconds: {spent}; {sum(stages.seconds.values()):.1f} in all", highlight=False)
