"""Watches of residuals: what they notice, and that they go on after a restart as before."""

from __future__ import annotations

import base64
import math
import subprocess
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pytest

from metallm_stream.policy.detectors import DETECTORS
from metallm_stream.policy.drift import ArmWatch, Drift, Residual, ResidualWatch, ageing_s
from metallm_stream.postgres.watches import read_watch

START = datetime(2026, 1, 1, tzinfo=UTC)
every_detector = pytest.mark.parametrize("detector", DETECTORS)


def residuals(values: Sequence[float], start: datetime = START) -> list[Residual]:
    """One a second."""
    return [
        Residual("a", start + timedelta(seconds=second), float(value))
        for second, value in enumerate(values)
    ]


def judged(rng: np.random.Generator, n: int, quality: float, predicted: float) -> list[float]:
    """Right or wrong answers less what was predicted."""
    return list((rng.random(n) < quality) - predicted)


def settled(detector: str) -> ArmWatch:
    """The watch of an arm that is known well enough, from the start on."""
    early = START - timedelta(minutes=1)
    held, _ = ResidualWatch(detector).observe(None, residuals([0.0] * 50, early), early)
    return held


def restored(watch: ArmWatch) -> ArmWatch:
    """The watch as it comes back from JSON."""
    found = read_watch(orjson.loads(orjson.dumps(asdict(watch))))
    assert found is not None
    return found


@every_detector
@pytest.mark.parametrize(("after", "direction"), [(0.4, "down"), (1.0, "up")])
def test_notices_a_shift_and_its_direction(detector: str, after: float, direction: str) -> None:
    """Of 0.3 within 250 answers, and says what the residuals were before and after."""
    rng = np.random.default_rng(3)
    watch = ResidualWatch(detector)
    held, drift = watch.observe(settled(detector), residuals(judged(rng, 600, 0.7, 0.7)), START)
    assert drift is None
    held, drift = watch.observe(held, residuals(judged(rng, 250, after, 0.7)), START)
    assert drift is not None
    assert (drift.arm, drift.direction) == ("a", direction)
    assert abs(drift.mean_before) < 0.1
    assert abs(drift.mean_after - (after - 0.7)) < 0.2
    assert held == ArmWatch(detector)  # begins anew


@every_detector
def test_a_steady_arm_raises_no_alarm(detector: str) -> None:
    """In 5,000 answers, however they are judged."""
    rng = np.random.default_rng(5)
    for values in (judged(rng, 5_000, 0.8, 0.8), list(rng.normal(0, 0.1, 5_000)), [0.0] * 5_000):
        watch, held = ResidualWatch(detector), settled(detector)
        assert watch.observe(held, residuals(values), START)[1] is None


@every_detector
def test_a_restored_watch_goes_on_as_if_nothing_had_happened(detector: str) -> None:
    """Batches of any size, each from JSON: the same states and the same drift, to the bit."""
    rng = np.random.default_rng(7)
    values = judged(rng, 300, 0.8, 0.8) + judged(rng, 200, 0.3, 0.8)
    watch = ResidualWatch(detector)
    whole: list[tuple[ArmWatch, Drift | None]] = []
    held = settled(detector)
    for value in values:
        held, drift = watch.observe(held, residuals([value]), START)
        whole.append((held, drift))
    assert sum(drift is not None for _, drift in whole) == 1
    for size in (7, 64, 250):
        again = settled(detector)
        for start in range(0, len(values), size):
            batch = residuals(values[start : start + size])
            again, drift = watch.observe(restored(again), batch, START)
            single = whole[start : start + size]
            alarms = [found for _, found in single if found is not None]
            assert drift == (alarms[0] if alarms else None)
            if drift is not None:
                break
            assert again == single[-1][0]


@every_detector
def test_another_learners_shift_begins_a_new_watch(detector: str) -> None:
    """And what was decided before it took effect is not watched any more."""
    rng = np.random.default_rng(9)
    watch = ResidualWatch(detector)
    held, _ = watch.observe(settled(detector), residuals(judged(rng, 300, 0.8, 0.8)), START)
    shift = START + timedelta(days=1)
    late = residuals(judged(rng, 300, 0.2, 0.8), shift - timedelta(seconds=200))
    held, drift = watch.observe(held, late[:230], shift, shift.timestamp())
    assert drift is None
    assert (held.since_s, held.learned, held.watched_from_s) == (shift.timestamp(), 30, None)
    held, _ = watch.observe(held, late[230:], shift, shift.timestamp())
    assert (held.learned, held.watched_from_s, held.seen) == (50, shift.timestamp() + 5, 50)


def test_what_was_decided_before_anything_was_learned_is_not_watched() -> None:
    """However late its labels come, and however many they are."""
    watch = ResidualWatch(settle=10)
    day = START + timedelta(days=1)
    held, drift = watch.observe(None, residuals([0.4] * 1_000), day)
    assert (drift, held.seen, held.watched_from_s) == (None, 0, day.timestamp() + 5)
    held, drift = watch.observe(held, residuals([0.4] * 1_000), day)
    held, drift = watch.observe(held, residuals([0.0] * 1_000, day + timedelta(seconds=5)), day)
    assert (drift, held.seen) == (None, 1_000)


def test_another_detector_does_not_go_on_from_a_foreign_state() -> None:
    """Who changes the setting begins anew."""
    held, _ = ResidualWatch("adwin").observe(settled("adwin"), residuals([0.1] * 80), START)
    changed, _ = ResidualWatch("page-hinkley").observe(held, residuals([0.1]), START)
    assert (changed.detector, changed.learned, changed.seen) == ("page-hinkley", 1, 0)
    with pytest.raises(ValueError, match="there are adwin, page-hinkley"):
        ResidualWatch("psychic")


@every_detector
@pytest.mark.parametrize(
    "changed",
    [
        {"surprise": 1},
        {"mean": "0.1"},
        {"mean": None},
        {"recent": float("inf")},
        {"watched_from_s": 10**400},
        {"seen": -1},
        {"learned": 1.5},
        {"detector": None},
        {"state": []},
    ],
    ids=str,
)
def test_a_stored_watch_with_foreign_fields_is_none(detector: str, changed: dict[str, Any]) -> None:
    """Unknown ones, and values that are not what they should be: no error."""
    stored = asdict(settled(detector))
    assert read_watch(stored) == settled(detector)
    assert read_watch(stored | changed) is None


def test_a_stored_watch_with_missing_fields_is_none() -> None:
    """Whichever it is; nor is anything but an object one."""
    stored = asdict(settled("adwin"))
    for name in stored:
        assert read_watch({key: value for key, value in stored.items() if key != name}) is None
    others: list[object] = [None, [], "adwin", 1]
    for other in others:
        assert read_watch(other) is None


def without_its_end(state: dict[str, Any], *, size: int) -> dict[str, Any]:
    """A state of ADWIN whose window has lost all but its first bytes, with a right checksum."""
    raw = base64.b64decode(state["window"])[:size]
    return state | {"window": base64.b64encode(raw).decode(), "crc32": zlib.crc32(raw)}


def unreadable(detector: str, state: dict[str, Any]) -> list[dict[str, Any]]:
    """What may have become of a state."""
    found = [{key: value for key, value in state.items() if key != name} for name in state]
    foreign: list[object] = [None, "?", [], {}, -1]
    found += [state | {name: value} for name in state for value in foreign]
    found += [state | {"river": "0.0.1"}]
    if detector == "adwin":
        window = state["window"]
        found += [state | {"window": window[:length]} for length in (0, 3, 4, len(window) - 4)]
        found += [state | {"window": ("B" if window[0] == "A" else "A") + window[1:]}]
        found += [without_its_end(state, size=size) for size in (0, 1, 100)]
    return [one for one in found if not _is_number_of_page_hinkley(one, state)]


def _is_number_of_page_hinkley(changed: dict[str, Any], state: dict[str, Any]) -> bool:
    """-1 is a mean and a sum like any other."""
    return any(changed.get(name) == -1 for name in state if name not in ("n", "river", "crc32"))


@every_detector
def test_a_state_that_cannot_be_read_begins_the_watch_anew(detector: str) -> None:
    """Missing, foreign, cut off, damaged, of another River: no error, and the arm settles again."""
    watch = ResidualWatch(detector)
    held, _ = watch.observe(settled(detector), residuals([0.1, -0.1] * 100), START)
    states = unreadable(detector, held.state)
    assert len(states) > 15
    for state in states:
        damaged = restored(replace(held, state=state))
        again, drift = watch.observe(damaged, residuals([0.1] * 49), START)
        assert (again, drift) == (ArmWatch(detector, learned=49), None), state
        again, _ = watch.observe(again, residuals([0.1]), START)
        later = residuals([0.1] * 20, START + timedelta(seconds=5))
        again, _ = watch.observe(again, later, START)
        assert again.seen == 20
        assert again.state.keys() == held.state.keys()


def test_ageing_takes_as_long_as_a_hundred_answers_of_all_arms() -> None:
    """At the pace at which they were watched; without any, evidence does not age."""
    began_s = START.timestamp()
    often = ArmWatch("adwin", watched_from_s=began_s, seen=900)
    later = ArmWatch("adwin", watched_from_s=began_s + 500, seen=50)
    unwatched = ArmWatch("adwin", learned=7)
    now = START + timedelta(seconds=1_000)
    assert ageing_s([often, later, unwatched], now) == pytest.approx(100.0)
    assert ageing_s([ArmWatch("adwin", watched_from_s=began_s, seen=10**9)], now) == 1.0
    assert ageing_s([unwatched], now) == math.inf


def test_river_is_not_loaded_before_it_is_needed() -> None:
    """It takes seconds, which a learner without judged answers need not wait for."""
    script = (
        "import sys; from datetime import UTC, datetime\n"
        "from metallm_stream.policy.drift import Residual, ResidualWatch\n"
        "now = datetime.now(UTC)\n"
        "ResidualWatch().observe(None, [Residual('a', now, 0.1)] * 50, now)\n"
        "sys.exit('river' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_detectors_do_not_bring_in_what_only_others_of_river_need() -> None:
    """A learner that begins again would wait for it; who imports River's package gets it whole."""
    script = (
        "import sys\n"
        "from metallm_stream.policy.detectors import DETECTORS\n"
        "ours = [detector({})._river for detector in DETECTORS.values()]\n"
        "assert 'scipy.stats' not in sys.modules\n"
        "from river import drift\n"
        "assert [type(one) for one in ours] == [drift.ADWIN, drift.PageHinkley]\n"
        "drift.KSWIN(seed=1).update(0.5)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
