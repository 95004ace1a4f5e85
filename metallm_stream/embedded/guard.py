"""Runs one command and ends it when the process that asked for it is gone.

Invariant: the command never outlives the other end of the guard's standard input. One guard runs
beside every server, so this file is run by path (``python -I -S guard.py NAME``), imports the
standard library only, and little of it.

Protocol: standard input is a pipe whose writing end the supervisor holds. Its first line is the
order, a JSON object as :class:`metallm_stream.embedded.child.Command` writes it (not an argument:
the environment may hold secrets); its end means stop. The guard prints the command's process id
as one line and ends with the command's exit code, or with 128 plus the number of the signal that
ended it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

_ORPHAN_CHECK_S = 1.0
_PR_SET_PDEATHSIG = 1


def _die_with_guard() -> Callable[[], None]:
    """Code for the child before it becomes the command: it is killed when the guard is.

    The call is Linux's own; elsewhere the guard's pipe alone protects against orphans.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    guard_pid = os.getpid()

    def arm() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard_pid:
                os._exit(1)

    return arm


def _spawn(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    account = order["account"]
    switch = {"user": account[0], "group": account[1], "extra_groups": []} if account else {}
    with open(order["log_path"], "ab", buffering=0) as log:  # noqa: PTH123 - pathlib is slow to import
        return subprocess.Popen(  # noqa: S603 - the supervisor's own command
            order["argv"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=order["cwd"],
            env=order["env"],
            start_new_session=True,
            preexec_fn=_die_with_guard(),  # noqa: PLW1509 - the guard has one thread
            **switch,
        )


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """End what the command left behind in its own session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _wait(child: subprocess.Popen[bytes], child_ended: int) -> None:
    """Return when the command has ended, or the supervisor wants it to end or is gone."""
    supervisor_pid = os.getppid()
    while child.poll() is None and os.getppid() == supervisor_pid:
        readable, _, _ = select.select([0, child_ended], [], [], _ORPHAN_CHECK_S)
        if 0 in readable and not os.read(0, 4096):
            return
        if child_ended in readable:
            os.read(child_ended, 4096)


def _stop(child: subprocess.Popen[bytes], stop_signal: int, grace_s: float) -> None:
    child.send_signal(stop_signal)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(grace_s)


def main() -> int:
    """Run the order on standard input until it ends or nobody wants it any more."""
    order = json.loads(sys.stdin.buffer.readline())
    wake, wake_writer = os.pipe()
    os.set_blocking(wake_writer, False)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # a handler, unlike SIG_IGN, does not outlive exec
    child = _spawn(order)
    sys.stdout.write(f"{child.pid}\n")
    sys.stdout.flush()
    _wait(child, wake)
    if child.poll() is None:
        _stop(child, order["stop_signal"], order["grace_s"])
    _kill_group(child)
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
