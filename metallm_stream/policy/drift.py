"""Watches an arm's residuals for a shift of their mean, with River's detectors.

Invariant: a watch is a value: its state goes through JSON unchanged, and going on from a restored
state gives what going on without a break would have given, to the bit.

A residual is the judged quality less the quality that was predicted when the query was decided. As
long as an arm stays what it is, residuals scatter around a mean that hardly moves, whatever the
queries are about, once the fit that predicts has learned of the arm. So the first answers of an arm
are not watched, nor any that were decided before those could be learned from, however late their
labels come. River takes seconds to load, so it is loaded when the first residual is watched.
"""

from __future__ import annotations

import base64
import importlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Protocol

# Answers that a fit must have learned from, anew after a shift, which makes it forget the others.
SETTLE = 50
# Until a fit has been published and decides.
LAG_S = 5.0
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
        When the arm's last known shift took effect, seconds since 1970.
    learned
        Answers that were decided since then and judged before `watched_from_s` was known.
    watched_from_s
        Decisions from this time on are those of a fit that has learned; None: not yet.
    seen, mean, recent
        Residuals of such decisions, their mean, and that of the last of them.
    state
        The detector's own, numbers and texts by name; empty before it has seen any.

    """

    detector: str
    since_s: float | None = None
    learned: int = 0
    watched_from_s: float | None = None
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

    Shifts of less than `DELTA` go unnoticed, also those of a fit that goes on learning.

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
    """Bifet and Gavaldà's adaptive window: cut where its older part has another mean.

    Notices a drop of 0.3 about as soon as `PageHinkley` with fewer false alarms, and smaller drops
    sooner: see `benchmarks/policy/drift_alarms.py`.

    References
    ----------
    Bifet & Gavaldà (2007), Learning from time-changing data with adaptive windowing.

    """

    DELTA, CLOCK = 0.02, 8

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
    "adwin": Adwin,
    "page-hinkley": PageHinkley,
}
DEFAULT_DETECTOR = "adwin"


class ResidualWatch:
    """Watches arms with one kind of detector.

    Parameters
    ----------
    detector
        A name in `DETECTORS`; raises `ValueError` for another.
    settle
        Answers of an arm that are learned from before it is watched, at least 1.

    Examples
    --------
    >>> from datetime import UTC, timedelta
    >>> watch, now = ResidualWatch(settle=1), datetime(2026, 1, 1, tzinfo=UTC)
    >>> def judged(*values):
    ...     return [Residual("a", now + timedelta(minutes=1), value) for value in values]
    >>> held, _ = watch.observe(None, judged(0.0), now)
    >>> held, drift = watch.observe(held, judged(*[0.2, -0.8, 0.2, 0.2, 0.2] * 60), now)
    >>> (held.seen, drift, watch.observe(held, judged(*[-0.8] * 60), now)[1].direction)
    (300, None, 'down')

    """

    def __init__(self, detector: str = DEFAULT_DETECTOR, *, settle: int = SETTLE) -> None:
        if detector not in DETECTORS:
            known = ", ".join(DETECTORS)
            raise ValueError(f"no drift detector {detector!r}; there are {known}")
        self.detector = detector
        self.settle = settle

    def observe(
        self,
        held: ArmWatch | None,
        residuals: Iterable[Residual],
        now: datetime,
        last_shift_s: float | None = None,
    ) -> tuple[ArmWatch, Drift | None]:
        """One arm's watch after some residuals of it, and the drift that they show, if any.

        What comes at `now` can be learned from now. The watch begins anew where another shift,
        which any learner may have seen, took effect (`last_shift_s`, seconds since 1970), where the
        detector is another one, and after a drift; what comes behind the drift is not watched.
        """
        watch = held or ArmWatch(self.detector, last_shift_s)
        if (watch.detector, watch.since_s) != (self.detector, last_shift_s):
            watch = ArmWatch(self.detector, last_shift_s)
        detector: Detector | None = None
        for residual in residuals:
            if not _is_watched(watch, residual):
                watch = self._settled(watch, residual, now)
                continue
            watch = _with(watch, residual.value)
            detector = detector or DETECTORS[self.detector](watch.state)
            if detector.update(residual.value):
                return ArmWatch(self.detector, last_shift_s), _drift(residual.arm, watch)
        return (watch if detector is None else replace(watch, state=detector.state())), None

    def _settled(self, watch: ArmWatch, residual: Residual, now: datetime) -> ArmWatch:
        """The watch after an answer that is learned from and not watched."""
        is_old = watch.since_s is not None and residual.decided_at.timestamp() < watch.since_s
        if is_old or watch.watched_from_s is not None:
            return watch
        learned = watch.learned + 1
        from_s = now.timestamp() + LAG_S if learned >= self.settle else None
        return replace(watch, learned=learned, watched_from_s=from_s)


def _is_watched(watch: ArmWatch, residual: Residual) -> bool:
    from_s = watch.watched_from_s
    return from_s is not None and residual.decided_at.timestamp() >= from_s


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
