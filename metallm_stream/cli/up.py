"""`metallm up`: the embedded Kafka and PostgreSQL in the foreground, until Ctrl-C.

Invariant: the password is written to the owner's file only, never to the terminal.
"""

from __future__ import annotations

import shlex
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self

import click
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from sqlalchemy import make_url

from metallm_stream import settings as settings_tree
from metallm_stream.embedded import EmbeddedStack, Progress, write_whole
from metallm_stream.settings import Settings

OnReady = Callable[[EmbeddedStack], None]


def up_command(on_ready: OnReady) -> click.Command:
    """The command `up`.

    Parameters
    ----------
    on_ready
        Called once both servers are ready and before the addresses are shown: the place to
        create topics and tables.
    """

    @click.command("up")
    @click.option(
        "--state-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where data, logs and ports are kept.  [default: METALLM_STATE_DIR, or the user's"
        " state directory]",
    )
    def up(state_dir: Path | None) -> None:
        """Run a real Kafka and a real PostgreSQL from packages, until Ctrl-C.

        The first start downloads Kafka's jars (43 MB) and prepares a fast start. Where
        KAFKA_BOOTSTRAP_SERVERS or DATABASE_URL is set, that server is used and only the other
        one is started.
        """
        settings = settings_tree.load()
        run_up(settings, state_dir or settings.state_dir, on_ready, Console())

    return up


def run_up(settings: Settings, state_dir: Path, on_ready: OnReady, console: Console) -> None:
    """Bring the servers up, say where they are, and stay until SIGINT or SIGTERM.

    Raises
    ------
    MetallmError
        When they cannot be started; the message has the remedy.
    """
    started = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    url = settings.database_url
    try:
        with (
            StepBars(console) as bars,
            EmbeddedStack(
                state_dir,
                bootstrap_servers=settings.kafka_bootstrap_servers,
                database_url=None if url is None else url.get_secret_value(),
                listener=bars.tell,
            ) as stack,
        ):
            bars.stop()
            on_ready(stack)
            _tell(stack, console, time.monotonic() - started)
            threading.Event().wait()  # for a signal
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

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _tell(stack: EmbeddedStack, console: Console, seconds: float) -> None:
    """Say where the servers are; their addresses as shell exports go to the owner's file."""
    exports = {
        "KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "DATABASE_URL": stack.database_url,
    }
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in exports.items()]
    write_whole(stack.state.env_file, "".join(lines))
    shown = make_url(stack.database_url).render_as_string(hide_password=True)
    console.print(f"Ready after {seconds:.1f} s", style="bold green", highlight=False)
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    say(f"  KAFKA_BOOTSTRAP_SERVERS={stack.bootstrap_servers}")
    say(f"  DATABASE_URL={shown}")
    say(f"In another shell:  source {shlex.quote(str(stack.state.env_file))}")
    say(f"Logs: {stack.logs}   Stop: Ctrl-C")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    raise KeyboardInterrupt


def _nothing(stack: EmbeddedStack) -> None:
    del stack


up = up_command(_nothing)
