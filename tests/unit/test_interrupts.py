"""The first signal ends a command that has started servers, in order; others change nothing."""

from __future__ import annotations

import signal
import subprocess
import sys

STOPPED = """
import threading, time
from metallm_stream.cli.interrupts import interrupt_once, wait_for_one

told = interrupt_once()
for _ in range(3):  # the system may give a signal to any thread
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
try:
    try:
        print("ready", flush=True)
        wait_for_one(told)
    finally:
        time.sleep(0.2)
        print("in order", flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def test_two_signals_at_once_stop_in_order() -> None:
    """As a terminal's and a supervisor's, whichever thread they reach."""
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", STOPPED],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            try:
                said = process.communicate(timeout=20)
            finally:
                process.kill()
        assert said == ("in order\nstopped\n", "")
