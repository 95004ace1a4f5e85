"""Time as the answering loop sees it: a wall clock for records, a monotonic one for durations.

Invariant: whoever waits, waits on this clock, so a test can let time pass without waiting.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where the answering loop reads the time and waits."""

    def now(self) -> datetime:
        """The aware time in UTC."""

    def monotonic(self) -> float:
        """Seconds from some fixed moment, never running backwards."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The aware time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds from some fixed moment, never running backwards."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)
