"""Watches an arm's residuals for a shift of their mean, with River's detectors.

Invariant: a watch is a value: its state goes through JSON unchanged, and going on from a restored
state gives what going on without a break would have given, to the bit.

A residual is the judged quality less the quality that was predicted when the query was decided. As
long as an arm stays what it is, residuals scatter around a mean that hardly moves, whatever the
queries are about. River takes seconds to load, so it is loaded when the first residual is watched.
"""

from __future__ import annotations

import base64
import importlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Protocol

# The first residuals of an arm are those of a fit that knows little of it; the same is true after
# a shift, when the fit has forgotten most.
SETTLE = 50
# About so many residuals make the mean after a shift.
RECENT = 30


@dataclass(frozen=True, slots=True)
class Residual:
    """Quality less predicted quality, in [-1, 1], of one judged answer."""

    arm: str
    decided_at: datetime
    value: float


@dataclass(frozen=True, slots=True)
class Drift:
    """An arm's mean residual has moved; `mean_before` is since the watch began or last moved."""

    arm: str
    direction: Literal["down", "up"]
    mean_before: float
    mean_after: float


@dataclass(frozen=True, slots=True)
class ArmWatch:
    """What is remembered of one arm's residuals.

    Attributes
    ----------
    detector
        Name of the detector that the state belongs to.
    since_s
        When the arm's last known shift took effect, seconds since 1970; older decisions are not
        watched, since the fit that predicted them is the one from before.
    seen, mean, recent
        Residuals since then, their mean, and that of the last of them.
    state
        The detector's own, numbers and texts by name; empty before it has seen any.

    """

    detector: str
    since_s: float | None = None
    seen: int = 0
    mean: float = 0.0
    recent: float = 0.0
    state: dict[str, Any] = field(default_factory=dict)


class Detector(Protocol):
    """A detector of River's whose state can be written down."""

    def update(self, value: float) -> bool:
        """Take in one residual; whether the mean has moved."""
        ...

    def state(self) -> dict[str, Any]:
        """All that is remembered, as JSON takes it."""
        ...


class PageHinkley:
    """Page and Hinkley's cumulated deviations from the mean, both ways.

    Shifts of less than `delta` go unnoticed, larger ones when they add up to `threshold`: see
    `benchmarks/policy/drift.py` for what that means in answers.

    References
    ----------
    Page (1954), Continuous inspection schemes.

    """

    DELTA, THRESHOLD = 0.15, 10.0
    _SUMS = ("_sum_increase", "_sum_decrease", "_min_increase", "_max_decrease")

    def __init__(self, state: dict[str, Any]) -> None:
        module = importlib.import_module("river.drift.page_hinkley")
        self._river = module.PageHinkley(delta=self.DELTA, threshold=self.THRESHOLD)
        if state:
            self._river._x_mean.n, self._river._x_mean._mean = state["n"], state["mean"]  # noqa: SLF001
            for name in self._SUMS:
                value = state[name.strip("_")]
                setattr(self._river, name, math.inf if value is None else value)

    def update(self, value: float) -> bool:
        """Take in one residual."""
        self._river.update(value)
        return bool(self._river.drift_detected)

    def state(self) -> dict[str, Any]:
        """Count, mean and the four cumulated sums; an infinite one is None."""
        mean = self._river._x_mean  # noqa: SLF001
        sums = {name.strip("_"): float(getattr(self._river, name)) for name in self._SUMS}
        finite = {name: value if math.isfinite(value) else None for name, value in sums.items()}
        return {"n": float(mean.n), "mean": float(mean.get())} | finite


class Adwin:
    """Bifet and Gavaldà's adaptive window: slower to see a large shift, but sees small ones too.

    References
    ----------
    Bifet & Gavaldà (2007), Learning from time-changing data with adaptive windowing.

    """

    DELTA, CLOCK = 0.002, 8

    def __init__(self, state: dict[str, Any]) -> None:
        module = importlib.import_module("river.drift.adwin")
        self._river = module.ADWIN(delta=self.DELTA, clock=self.CLOCK)
        if state:
            self._river._helper.__setstate__(base64.b64decode(state["window"]))  # noqa: SLF001

    def update(self, value: float) -> bool:
        """Take in one residual."""
        self._river.update(value)
        return bool(self._river.drift_detected)

    def state(self) -> dict[str, Any]:
        """River's own bytes of its window, in base64."""
        raw = bytes(self._river._helper.__getstate__())  # noqa: SLF001
        return {"window": base64.b64encode(raw).decode()}


DETECTORS: dict[str, type[PageHinkley | Adwin]] = {
    "page-hinkley": PageHinkley,
    "adwin": Adwin,
}


class ResidualWatch:
    """Watches arms with one kind of detector.

    Parameters
    ----------
    detector
        A name in `DETECTORS`; raises `ValueError` for another.
    settle
        An arm's first so many residuals are not watched.

    Examples
    --------
    >>> from datetime import UTC
    >>> watch, now = ResidualWatch("page-hinkley"), datetime(2026, 1, 1, tzinfo=UTC)
    >>> same = [Residual("a", now, value) for value in [0.2, -0.8, 0.2, 0.2, 0.2] * 60]
    >>> worse = [Residual("a", now, -0.8) for _ in range(30)]
    >>> held, drift = watch.observe(None, same)
    >>> (held.seen, drift, watch.observe(held, worse)[1].direction)
    (300, None, 'down')

    """

    def __init__(self, detector: str = "page-hinkley", *, settle: int = SETTLE) -> None:
        if detector not in DETECTORS:
            known = ", ".join(DETECTORS)
            raise ValueError(f"no drift detector {detector!r}; there are {known}")
        self.detector = detector
        self.settle = settle

    def observe(
        self,
        held: ArmWatch | None,
        residuals: Iterable[Residual],
        last_shift_s: float | None = None,
    ) -> tuple[ArmWatch, Drift | None]:
        """One arm's watch after some residuals of it, and the drift that they show, if any.

        The watch begins anew where another shift, which any learner may have seen, took effect
        (`last_shift_s`, seconds since 1970), where the detector is another one, and after a drift;
        what comes behind the drift is not watched.
        """
        watch = held or ArmWatch(self.detector, last_shift_s)
        if (watch.detector, watch.since_s) != (self.detector, last_shift_s):
            watch = ArmWatch(self.detector, last_shift_s)
        detector: Detector | None = None
        for residual in residuals:
            if last_shift_s is not None and residual.decided_at.timestamp() < last_shift_s:
                continue
            watch = _with(watch, residual.value)
            if watch.seen <= self.settle:
                continue
            detector = detector or DETECTORS[self.detector](watch.state)
            if detector.update(residual.value):
                return ArmWatch(self.detector, last_shift_s), _drift(residual.arm, watch)
        return (watch if detector is None else replace(watch, state=detector.state())), None


def _with(watch: ArmWatch, value: float) -> ArmWatch:
    seen = watch.seen + 1
    return replace(
        watch,
        seen=seen,
        mean=watch.mean + (value - watch.mean) / seen,
        recent=watch.recent + (value - watch.recent) / min(seen, RECENT),
    )


def _drift(arm: str, watch: ArmWatch) -> Drift:
    direction: Literal["down", "up"] = "down" if watch.recent < watch.mean else "up"
    return Drift(arm, direction, watch.mean, watch.recent)
