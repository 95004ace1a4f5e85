"""Questions that tests ask about processes, and the waiting for their answers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from metallm_stream.embedded.child import Child

_CHECK_S = 0.01


def eventually(condition: Callable[[], object], within_s: float = 20.0) -> None:
    """Return when the condition holds; fail after the deadline."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        pause.wait(_CHECK_S)


def kill_and_wait(child: Child, within_s: float = 60.0) -> None:
    """End a server at once, and return when its supervisor has it ready again."""
    assert child.pid is not None
    ended = len(child.exit_codes)
    os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: len(child.exit_codes) > ended)
    child.wait_ready(within_s)


def is_running(pid: int) -> bool:
    """Whether the process exists and has not ended (one that init is slow to notice has)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    status = Path(f"/proc/{pid}/stat")
    try:
        return not status.read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return not status.parent.parent.joinpath("self").exists()  # no /proc: it does run
