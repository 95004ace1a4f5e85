"""Watches an arm's residuals for a shift of their mean, with River's detectors.

Invariant: a watch is a value: its state goes through JSON unchanged, and going on from a restored
state gives what going on without a break would have given, to the bit.

A residual is the judged quality less the quality that was predicted when the query was decided. As
long as an arm stays what it is, residuals scatter around a mean that hardly moves, whatever the
queries are about, once the fit that predicts has learned of the arm. So the first answers of an arm
are not watched, nor any that were decided before those could be learned from, however late their
labels come. River takes seconds to load, so it is loaded when the first residual is watched.
A state that cannot be read, or that another version of River has written, begins the watch anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from metallm_stream.policy.detectors import (
    DEFAULT_DETECTOR,
    DETECTORS,
    Detector,
    UnreadableState,
)

# Answers that a fit must have learned from, anew after a shift, which makes it forget the others.
SETTLE = 50
# Until a fit has been published and decides.
LAG_S = 5.0
# About so many residuals make the mean after a shift.
RECENT = 30
# Judged answers of all arms within which evidence begins to age after a shift (τ).
AGEING_ANSWERS = 100.0


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


class ResidualWatch:
    """Watches arms with one kind of detector.

    Parameters
    ----------
    detector
        A name in `policy.detectors.DETECTORS`; raises `ValueError` for another.
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
        detector is another one or cannot read its state, and after a drift; what comes behind the
        drift is not watched.
        """
        anew = ArmWatch(self.detector, last_shift_s)
        watch = held or anew
        if (watch.detector, watch.since_s) != (self.detector, last_shift_s):
            watch = anew
        detector: Detector | None = None
        for residual in residuals:
            if detector is None and _is_watched(watch, residual):
                detector = _detector(watch)
                watch = anew if detector is None else watch
            if detector is None or not _is_watched(watch, residual):
                watch = self._settled(watch, residual, now)
                continue
            watch = _with(watch, residual.value)
            if detector.update(residual.value):
                return anew, _drift(residual.arm, watch)
        return (watch if detector is None else replace(watch, state=detector.state())), None

    def _settled(self, watch: ArmWatch, residual: Residual, now: datetime) -> ArmWatch:
        """The watch after an answer that is learned from and not watched."""
        is_old = watch.since_s is not None and residual.decided_at.timestamp() < watch.since_s
        if is_old or watch.watched_from_s is not None:
            return watch
        learned = watch.learned + 1
        from_s = now.timestamp() + LAG_S if learned >= self.settle else None
        return replace(watch, learned=learned, watched_from_s=from_s)


def ageing_s(watches: Iterable[ArmWatch], now: datetime) -> float:
    """The time in which `AGEING_ANSWERS` were judged, at least 1 s; infinite if none was watched.

    At the pace since each arm's watch began.
    """
    per_s = sum(
        watch.seen / max(1.0, now.timestamp() - watch.watched_from_s)
        for watch in watches
        if watch.watched_from_s is not None
    )
    return max(1.0, AGEING_ANSWERS / per_s) if per_s > 0 else math.inf


def _detector(watch: ArmWatch) -> Detector | None:
    """The detector as the watch left it, or None if its state cannot be read."""
    try:
        return DETECTORS[watch.detector](watch.state)
    except UnreadableState:
        return None


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
