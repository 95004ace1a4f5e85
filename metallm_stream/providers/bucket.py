"""A leaky bucket that tells its wait beforehand, and can learn from a vendor's headers.

Invariant: over any span of t seconds no more than `capacity + rate_per_s · t` is let through, and
one request more; whoever takes first is let through first.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from metallm_stream.providers.rate_headers import Quota

_SHORTEST_RESET_S = 0.001  # below it, a reset tells no speed


@dataclass(slots=True)
class Bucket:
    """What was used of a limit; it drains at `rate_per_s` and holds `capacity`.

    >>> bucket = Bucket(rate_per_s=2.0, capacity=1.0)
    >>> [bucket.take(1.0, now_s=0.0) for _ in range(3)]
    [0.0, 0.5, 1.0]
    """

    rate_per_s: float
    capacity: float
    level: float = 0.0
    taken: float = 0.0
    at_s: float = 0.0
    returned: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=1_000))

    @classmethod
    def a_minute(cls, amount: float) -> Bucket:
        """So much a minute, evenly: a second's worth, or one, at once."""
        return cls(amount / 60, max(1.0, amount / 60))

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until so much may be used; more than the capacity waits until all is drained."""
        self._drain(now_s)
        return max(0.0, self.level + amount - max(self.capacity, amount)) / self.rate_per_s

    def take(self, amount: float, now_s: float) -> float:
        """Use so much, after the wait in seconds that is returned."""
        wait_s = self.wait_s(amount, now_s)
        self.level += amount
        self.taken += amount
        return wait_s

    def give_back(self, amount: float, taken_then: float) -> None:
        """What was taken will not be used; `taken_then` is `taken` just after it was."""
        self.settle(-amount)
        self.returned.append((taken_then, amount))

    def settle(self, difference: float) -> None:
        """So much more was used than was taken; less, if negative."""
        self.level = max(0.0, self.level + difference)

    def learn(self, quota: Quota, taken_then: float, now_s: float) -> None:
        """Take over what the vendor says; `taken_then` is `taken` when its request was sent.

        What was taken after that, the vendor had not counted. Its bucket is full again after
        `reset_s`, which tells how fast it drains.
        """
        used = max(0.0, quota.limit - quota.remaining)
        if used > 0 and quota.reset_s >= _SHORTEST_RESET_S:
            self.rate_per_s = used / quota.reset_s
        self.capacity, self.at_s = quota.limit, now_s
        returned = sum(amount for then, amount in self.returned if then > taken_then)
        self.level = max(0.0, used + self.taken - taken_then - returned)

    def _drain(self, now_s: float) -> None:
        self.level = max(0.0, self.level - (now_s - self.at_s) * self.rate_per_s)
        self.at_s = now_s
