"""What a learner counts beside its loop: interactions, refreshes, residuals, shifts.

Invariant: an interaction is counted when what was learned of it has been committed.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from metallm_stream.join import Interaction
from metallm_stream.serve.drift import Observed
from metallm_stream.serve.metrics import LoopMetrics

REFRESH_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
PARTS = ("decision", "result", "feedback")


class LearnerMetrics(LoopMetrics):
    """The metrics of one learner, of which replica `slot` is."""

    def __init__(self, slot: str) -> None:
        super().__init__("learner", slot)
        interactions = self.counter(
            "interactions", "Queries whose first decision, result or feedback has come.", "part"
        )
        self._interactions = [interactions.labels(part) for part in PARTS]
        self.refresh_s = self.histogram(
            "refresh_seconds", "From the sums of all slots to a published policy.", REFRESH_S
        )
        self.sums_bytes = self.gauge("sums_bytes", "The table of sums on disk, all slots.")
        self.sums_in_force_bytes = self.gauge("sums_in_force_bytes", "Of it what was not replaced.")
        self._residual = self.gauge(
            "residual", "Judged quality less predicted quality, mean of the last 30 or so.", "arm"
        )
        self._shifts = cache(
            self.counter("shifts", "Lasting changes of an arm's quality noticed.", "arm").labels
        )

    def learned(
        self, pairs: Iterable[tuple[Interaction | None, Interaction]], observed: Observed
    ) -> None:
        """Count what one transaction has changed, interactions before and after it."""
        decisions = results = judged = 0
        for before, after in pairs:
            if after.decision is not None and (before is None or before.decision is None):
                decisions += 1
                if after.decision.arm is not None:
                    self._shifts(after.decision.arm)  # at 0, long before there may be one
            if after.result is not None and (before is None or before.result is None):
                results += 1
            if after.feedback and (before is None or not before.feedback):
                judged += 1
        for counter, count in zip(self._interactions, (decisions, results, judged), strict=True):
            counter.inc(count)
        for arm, watch in observed.watches.items():
            self._residual.labels(arm).set(watch.recent)
        for drift in observed.drifts:
            self._shifts(drift.arm).inc()
