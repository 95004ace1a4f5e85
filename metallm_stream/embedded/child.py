"""One supervised child process: its command, its readiness, its restarts.

Invariant: at most one instance of a command runs at a time; the next one starts only after the
guard of the last one has ended, and a guard ends only when its command's processes are gone.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from metallm_stream.errors import MetallmError

_log = logging.getLogger(__name__)

_GUARD = Path(__file__).with_name("guard.py")
_READY_CHECK_S = 0.03
_HEALTH_CHECK_S = 10.0
_UNHEALTHY_PATIENCE_S = 60.0
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 5.0
_STABLE_AFTER_S = 10.0
_HOPELESS_EXITS = 3
_LOG_LIMIT_BYTES = 16 * 1024 * 1024
_TAIL_LINES = 15


class ChildFailed(MetallmError):
    """A child process did not become ready; the message ends with the last lines of its log."""


class Account(NamedTuple):
    """The user and group under which a command runs."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Command:
    """What to run and how to end it.

    Attributes
    ----------
    argv
        The program, as an absolute path, and its arguments.
    env
        The whole environment; nothing is inherited.
    log_path
        Where standard output and error are appended; above 16 MB it starts anew and the older
        part is kept beside it as ``.1``.
    account
        Whom to run as; ``None`` for ourselves.
    stop_signal, grace_s
        The signal that asks the program to end, and the seconds until it is killed.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    log_path: Path
    cwd: Path = Path("/")
    account: Account | None = None
    stop_signal: int = signal.SIGTERM
    grace_s: float = 10.0

    def order(self) -> bytes:
        """The line that a guard reads."""
        fields = asdict(self) | {"env": dict(self.env)}
        return json.dumps(fields, default=str).encode() + b"\n"


class Child:
    """A command that is kept running until :meth:`stop`.

    Parameters
    ----------
    name
        For messages and process lists.
    ready
        Asked until it says yes for the first time, then every 10 s: an instance that has said no
        for a minute is ended and started again. ``None``: ready as soon as it runs.
    restart
        Whether an instance that ends is followed by another, after 0.1 s at first and at most 5 s
        when it keeps failing; never after 78, by which it says that a restart does not help.
    held_files
        Descriptors that the guard keeps open as long as the command lives.
    """

    def __init__(
        self,
        name: str,
        command: Command,
        *,
        ready: Callable[[], bool] | None = None,
        restart: bool = True,
        held_files: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.command = command
        self._is_ready = ready or (lambda: True)
        self._restart = restart
        self._held_files = tuple(held_files)
        self._change = threading.Condition()
        self._guard: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._ready = False
        self._stopping = False
        self._exit_codes: list[int] = []
        self._ever_ready = False
        self._thread = threading.Thread(target=self._run, name=f"child {name}", daemon=True)

    @property
    def pid(self) -> int | None:
        """Process id of the running instance, of the command itself and not of its guard."""
        return self._pid

    @property
    def guard_pid(self) -> int | None:
        """Process id of the guard of the newest instance."""
        return None if self._guard is None else self._guard.pid

    @property
    def is_ready(self) -> bool:
        """Whether the running instance has said that it is ready."""
        return self._ready

    @property
    def exit_codes(self) -> tuple[int, ...]:
        """How each ended instance ended; 128 plus the number for one ended by a signal."""
        with self._change:
            return tuple(self._exit_codes)

    @property
    def is_over(self) -> bool:
        """Whether no instance runs and none will."""
        return not self._thread.is_alive()

    def start(self) -> None:
        """Begin to run; returns at once."""
        self._thread.start()

    def wait_ready(self, timeout_s: float) -> None:
        """Return when an instance is ready.

        Raises
        ------
        ChildFailed
            When the time is over, the child is or is being stopped, will not be started again, or
            its first three instances ended before they were ready.
        """
        with self._change:
            self._change.wait_for(lambda: self._ready or self._is_hopeless(), timeout_s)
            if not self._ready:
                raise ChildFailed(self._complaint(timeout_s))

    def wait_over(self, timeout_s: float) -> int | None:
        """Wait for a child without restart to end; its exit code, or ``None`` if it still runs."""
        self._thread.join(timeout_s)
        return None if self._thread.is_alive() else (self.exit_codes or (None,))[-1]

    def stop(self) -> None:
        """End the running instance and start no other; returns when its processes are gone."""
        with self._change:
            self._stopping = True
            self._change.notify_all()
            self._hang_up()
        if self._thread.ident is not None:
            self._thread.join()

    def _hang_up(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()

    def _is_hopeless(self) -> bool:
        ended = len(self._exit_codes)
        if self._stopping or not self._restart:
            return self._stopping or ended > 0
        if os.EX_CONFIG in self._exit_codes:
            return True
        return not self._ever_ready and ended >= _HOPELESS_EXITS

    def _complaint(self, timeout_s: float) -> str:
        state = (
            f"ended with exit code {self._exit_codes[-1]}"
            if self._exit_codes
            else f"was not ready within {timeout_s:g} s"
        )
        path = self.command.log_path
        return f"{self.name} {state}; the last lines of its log {path}:\n{self._tail(_TAIL_LINES)}"

    def _tail(self, count: int) -> str:
        path = self.command.log_path
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join(f"    {line}" for line in lines[-count:])

    def _run(self) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            guard = self._launch()
            if guard is None:
                return
            code = self._watch(guard)
            stable = time.monotonic() - started > _STABLE_AFTER_S
            failures = 0 if stable else failures + 1
            if not self._go_on_after(code, failures):
                return

    def _launch(self) -> subprocess.Popen[bytes] | None:
        with self._change:
            if self._stopping:
                return None
            guard = self._guard = self._spawn_guard()
            assert guard.stdin is not None
            guard.stdin.write(self.command.order())
            guard.stdin.flush()
        assert guard.stdout is not None
        first_line = guard.stdout.readline()
        self._pid = int(first_line) if first_line else None
        return guard

    def _spawn_guard(self) -> subprocess.Popen[bytes]:
        _shorten(self.command.log_path)
        with self.command.log_path.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own interpreter and file
                [sys.executable, "-I", "-S", str(_GUARD), self.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=self._held_files,
                start_new_session=True,
            )

    def _watch(self, guard: subprocess.Popen[bytes]) -> int:
        """Ask for readiness, later for health, until the instance has ended; its exit code."""
        assert guard.stdout is not None
        well_at = time.monotonic()
        while not select.select(
            [guard.stdout], [], [], _HEALTH_CHECK_S if self._ready else _READY_CHECK_S
        )[0]:
            if self._is_ready():
                well_at = time.monotonic()
                self._note_ready()
            elif self._ready and time.monotonic() - well_at > _UNHEALTHY_PATIENCE_S:
                _log.warning("%s no longer answers: it is started again", self.name)
                with self._change:
                    self._hang_up()
        guard.stdout.close()
        code = guard.wait()
        return code if code >= 0 else 128 - code  # negative: the guard itself was killed

    def _note_ready(self) -> None:
        with self._change:
            self._ready = self._ever_ready = True
            self._change.notify_all()

    def _go_on_after(self, code: int, failures: int) -> bool:
        """Book the end of an instance; wait before the next one, if there is to be one."""
        backoff_s = min(_FIRST_BACKOFF_S * 2 ** max(failures - 1, 0), _LONGEST_BACKOFF_S)
        with self._change:
            self._ready, self._pid = False, None
            self._exit_codes.append(code)
            self._hang_up()
            self._change.notify_all()
            if self._stopping or not self._restart:
                return False
            if code == os.EX_CONFIG:
                if self._ever_ready:  # else `wait_ready` tells
                    _log.error(
                        "%s ended with exit code %d: mend what its log says, then start anew\n%s",
                        *(self.name, code, self._tail(1)),
                    )
                return False
            _log.warning(
                "%s ended with exit code %d: next try in %.1f s", self.name, code, backoff_s
            )
            return not self._change.wait_for(lambda: self._stopping, backoff_s)


def _shorten(log_path: Path) -> None:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    if log_path.exists() and log_path.stat().st_size > _LOG_LIMIT_BYTES:
        log_path.replace(log_path.with_name(log_path.name + ".1"))
