"""Keeps child processes running: starts, watches, restarts with back-off, stops.

Invariant: no child outlives this process, however it ends, because each runs beside a guard that
holds a pipe to us; and a child that crashes comes back with the same command, and so on the same
port.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from metallm_stream.embedded.child import Child, ChildFailed, Command


class Supervisor:
    """The children of this process by name, stopped in the reverse order of their start.

    Parameters
    ----------
    held_files
        Descriptors that every guard keeps open as long as its child lives: a lock file among
        them stays locked until the last child has gone.

    Examples
    --------
    >>> import sys, tempfile
    >>> from pathlib import Path
    >>> argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    >>> with tempfile.TemporaryDirectory() as directory, Supervisor() as supervisor:
    ...     child = supervisor.add("sleeper", argv, {}, Path(directory) / "sleeper.log")
    ...     child.wait_ready(timeout_s=10)
    ...     child.pid is not None
    True
    """

    def __init__(self, *, held_files: Sequence[int] = ()) -> None:
        self._held_files = tuple(held_files)
        self._children: dict[str, Child] = {}
        self._lock = threading.Lock()
        self._stopped = False

    @property
    def children(self) -> Mapping[str, Child]:
        """Every child that was added, by name."""
        return self._children

    def add(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        log_path: Path,
        *,
        ready: Callable[[], bool] | None = None,
        restart: bool = True,
    ) -> Child:
        """Start a program of ours as a child; see :class:`Command` and :class:`Child`."""
        return self.run(name, Command(tuple(argv), env, log_path), ready=ready, restart=restart)

    def run(
        self,
        name: str,
        command: Command,
        *,
        ready: Callable[[], bool] | None = None,
        restart: bool = True,
    ) -> Child:
        """Start a command as a child; returns at once, the child's ``wait_ready`` waits.

        Raises
        ------
        ValueError
            When the name is taken.
        ChildFailed
            When the supervisor has been stopped.
        """
        with self._lock:
            if name in self._children:
                raise ValueError(f"a child named {name!r} was added before")
            if self._stopped:
                raise ChildFailed(f"{name} was not started: everything is being stopped")
            child = Child(name, command, ready=ready, restart=restart, held_files=self._held_files)
            self._children[name] = child
            child.start()
        return child

    def stop(self) -> None:
        """Stop every child, the last added first; returns when their processes are gone."""
        with self._lock:
            self._stopped = True
        for child in reversed(tuple(self._children.values())):
            child.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
