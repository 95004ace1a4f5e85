"""Ends the process when a call into the client hangs beyond its own timeout.

Invariant: a hung transactional call cannot hold partitions for ever; restart is the recovery.
`send_offsets_to_transaction` ignores its timeout after some broker restarts (librdkafka #5511).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 70
_CHECK_EVERY_S = 0.5

log = logging.getLogger(__name__)


class Watchdog:
    """A daemon thread that ends the process when a watched block overstays its limit."""

    def __init__(self) -> None:
        self._deadline: tuple[float, str] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def limit(self, what: str, seconds: float) -> Iterator[None]:
        """End the process if the block takes longer than `seconds`; blocks may nest."""
        outer = self._deadline
        self._deadline = (time.monotonic() + seconds, what)
        try:
            yield
        finally:
            self._deadline = outer

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_CHECK_EVERY_S):
            watched = self._deadline
            if watched is not None and time.monotonic() > watched[0]:
                log.critical("%s hangs: ending the process, a restart replays", watched[1])
                logging.shutdown()
                os._exit(EXIT_CODE)
