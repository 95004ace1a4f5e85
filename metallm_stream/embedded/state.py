"""The state directory: who holds it, which ports its servers use, which files it has.

Invariant: one set of servers at a time uses a directory. The lock is the kernel's, so that a dead
process never holds it, and the guards of the servers hold it too, so that it is free only when
the last server of an earlier run has gone.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from metallm_stream.embedded.ports import free_port, is_free
from metallm_stream.errors import ConfigurationError

_LAST_RUN_ENDS_WITHIN_S = 30.0
_LOCK_CHECK_S = 0.05


class AlreadyRunning(ConfigurationError):
    """Another process runs the servers of this directory; the message says which and where."""


class StateDirectory:
    """A locked state directory; a context manager.

    Parameters
    ----------
    path
        Created where it is missing. Everybody may pass through it (PostgreSQL's account must,
        when we are root), nobody but the owner may list it.

    Raises
    ------
    AlreadyRunning
        On entering, when another process holds the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self.env_file = self.path / "env"
        self._lock: int | None = None
        self._drawing = threading.Lock()

    @property
    def lock_file(self) -> int:
        """Descriptor of the locked file."""
        assert self._lock is not None, "the directory is not locked"
        return self._lock

    def tell(self, addresses: Mapping[str, str]) -> None:
        """Leave our process id and the servers' addresses for whoever finds the directory taken."""
        text = json.dumps({"pid": os.getpid(), **addresses})
        os.ftruncate(self.lock_file, 0)
        os.pwrite(self.lock_file, text.encode(), 0)

    def ports(self, *names: str) -> tuple[int, ...]:
        """A free port for each name: the one used last time where it is still free."""
        file = self.path / "ports.json"
        with self._drawing:
            known: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
            for name in names:
                if name not in known or not is_free(known[name]):
                    known[name] = free_port(avoid=frozenset(known.values()))
            write_whole(file, json.dumps(known))
        return tuple(known[name] for name in names)

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o711)
        self.logs.mkdir(exist_ok=True, mode=0o700)
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._take(lock)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        self.tell({})
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.lock_file)
        self._lock = None

    def _take(self, lock: int) -> None:
        deadline = time.monotonic() + _LAST_RUN_ENDS_WITHIN_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                holder = _holder(lock)
                if _is_alive(holder.pop("pid", None)) or time.monotonic() > deadline:
                    raise AlreadyRunning(self._taken(lock)) from exc
                time.sleep(_LOCK_CHECK_S)
            else:
                return

    def _taken(self, lock: int) -> str:
        holder = _holder(lock)
        pid = holder.pop("pid", "unknown")
        where = ", ".join(f"{name} at {address}" for name, address in holder.items())
        return (
            f"the servers of {self.path} are already running (process {pid}"
            f"{', ' + where if where else ''}): use them, stop that process, or choose another"
            " state directory"
        )


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that a reader finds the old text or the new, never a part."""
    draft = path.with_name(path.name + ".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def _holder(lock: int) -> dict[str, Any]:
    raw = os.pread(lock, 65_536, 0)
    try:
        holder: dict[str, Any] = json.loads(raw or b"{}")
    except json.JSONDecodeError:
        return {}  # the holder is writing
    return holder


def _is_alive(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
