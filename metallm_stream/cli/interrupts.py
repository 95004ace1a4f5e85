"""Ctrl-C and SIGTERM where servers were started: the first one ends the command, in order.

Invariant: no second signal breaks the stop that the first one has begun.
"""

from __future__ import annotations

import os
import select
import signal
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


def interrupt_once() -> int:
    """Have the first signal raise `KeyboardInterrupt`, and no other; what to `wait_for_one` on."""
    told, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in _NUMBERS:
        signal.signal(number, _first)
    return told


def wait_for_one(told: int) -> None:
    """Wait for a signal; unlike a lock, a pipe also hears of one that another thread was given."""
    select.select([told], [], [])


def _first(number: int, frame: FrameType | None) -> None:
    del number, frame
    for each in _NUMBERS:
        signal.signal(each, lambda *_: None)  # a handler, unlike SIG_IGN, does not outlive exec
    raise KeyboardInterrupt
