"""River's detectors of a shift of a mean, with states that go through JSON.

Invariant: a detector goes on from a state to the bit, or refuses it: a state that is damaged or
that another version of River has written raises `UnreadableState` and nothing else.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
import sys
import zlib
from types import ModuleType
from typing import Any, Protocol


class UnreadableState(ValueError):
    """A detector cannot go on from this state."""


class Detector(Protocol):
    """A detector of River's whose state can be written down."""

    def update(self, value: float) -> bool:
        """Take in one residual; whether the mean has moved."""

    def state(self) -> dict[str, Any]:
        """All that is remembered, as JSON takes it."""


class Window(Protocol):
    """What River's ADWIN keeps in Rust."""

    def __setstate__(self, raw: bytes, /) -> None:
        """Go on from the bytes of another one."""


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
        module = _river_drift("page_hinkley")
        self._river = module.PageHinkley(delta=self.DELTA, threshold=self.THRESHOLD)
        if state:
            _require_version(state)
            self._river._x_mean.n = _number(state, "n", least=1)  # noqa: SLF001
            self._river._x_mean._mean = _number(state, "mean")  # noqa: SLF001
            for name in self._SUMS:
                setattr(self._river, name, _number(state, name.strip("_")))

    def update(self, value: float) -> bool:
        """Take in one residual."""
        self._river.update(value)
        return bool(self._river.drift_detected)

    def state(self) -> dict[str, Any]:
        """Count, mean and the four cumulated sums, all finite after the first residual."""
        mean = self._river._x_mean  # noqa: SLF001
        sums = {name.strip("_"): float(getattr(self._river, name)) for name in self._SUMS}
        return {"river": river_version(), "n": float(mean.n), "mean": float(mean.get())} | sums


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
        module = _river_drift("adwin")
        self._river = module.ADWIN(delta=self.DELTA, clock=self.CLOCK)
        if state:
            _require_version(state)
            _restore(self._river._helper, _window(state))  # noqa: SLF001

    def update(self, value: float) -> bool:
        """Take in one residual."""
        self._river.update(value)
        return bool(self._river.drift_detected)

    def state(self) -> dict[str, Any]:
        """River's own bytes of its window, in base64, and their checksum."""
        raw = bytes(self._river._helper.__getstate__())  # noqa: SLF001
        window = base64.b64encode(raw).decode()
        return {"river": river_version(), "window": window, "crc32": zlib.crc32(raw)}


def _river_drift(name: str) -> ModuleType:
    """A module of River's detectors, without the package around it.

    That one imports much of SciPy for its other detectors, which takes 1.5 s, and more where a
    learner begins again. Whoever imports it later gets it whole.
    """
    package = "river.drift"
    if (found := sys.modules.get(f"{package}.{name}")) is not None:
        return found
    if package in sys.modules:
        return importlib.import_module(f"{package}.{name}")
    spec = importlib.util.find_spec(package)
    assert spec is not None
    sys.modules[package] = importlib.util.module_from_spec(spec)  # not run
    try:
        return importlib.import_module(f"{package}.{name}")
    finally:
        del sys.modules[package]


def river_version() -> str:
    """The installed version, which alone is sure to understand the states that it writes."""
    return str(importlib.import_module("river").__version__)


def _require_version(state: dict[str, Any]) -> None:
    if state.get("river") != river_version():
        raise UnreadableState(f"written by River {state.get('river')!r}, not {river_version()}")


def _number(state: dict[str, Any], name: str, *, least: float = -sys.float_info.max) -> float:
    value = state.get(name)
    if isinstance(value, int | float) and least <= value <= sys.float_info.max:
        return float(value)
    raise UnreadableState(f"{name} must be a number from {least:g} on, got {value!r}")


def _window(state: dict[str, Any]) -> bytes:
    try:
        raw = base64.b64decode(state["window"], validate=True)
    except (KeyError, TypeError, ValueError) as exc:
        raise UnreadableState(f"window is no base64: {exc}") from exc
    if zlib.crc32(raw) != state.get("crc32"):
        raise UnreadableState("window is damaged: its checksum is another one")
    return raw


def _restore(helper: Window, raw: bytes) -> None:
    """Set River's window; a panic of its Rust part is no `Exception`, and has no importable name.

    Any other `BaseException`, as of a process that is told to stop, goes its way.
    """
    try:
        helper.__setstate__(raw)
    except BaseException as exc:
        if type(exc).__name__ != "PanicException":
            raise
        raise UnreadableState(f"River cannot read the window: {exc}") from exc


DETECTORS: dict[str, type[PageHinkley | Adwin]] = {
    "adwin": Adwin,
    "page-hinkley": PageHinkley,
}
DEFAULT_DETECTOR = "adwin"
