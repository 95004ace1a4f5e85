"""The cap on what a worker spends."""

from __future__ import annotations

import pytest

from metallm_stream.events import Model, Price, WorkerSpend
from metallm_stream.providers import Spending
from metallm_stream.providers.spending import MOST_MEANS
from tests.unit.test_circuit import MINI, NOW, HandClock

FREE = Model(
    arm="own",
    provider="here",
    model="o",
    price=Price(input_usd_per_mtok=0, output_usd_per_mtok=0),
)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def account(clock: HandClock, per: str = "hour") -> Spending:
    return Spending("here", "0", 1.0, per, clock)  # type: ignore[arg-type]


def spend(spending: Spending, *costs_usd: float | None) -> None:
    for cost_usd in costs_usd:
        assert spending.enter(MINI) is None
        spending.leave(MINI.arm, cost_usd)


def test_nothing_is_asked_once_the_cap_is_reached(clock: HandClock) -> None:
    """But arms that are free; the reason has the figures."""
    spending = account(clock)
    spend(spending, 0.5, None, 0.5)
    said = spending.enter(MINI)
    assert said is not None
    assert "has spent 1 USD since 2026-03-01T12:00Z" in said
    assert "of 1 per hour" in said
    assert spending.enter(FREE) is None


def test_an_arm_that_has_cost_something_is_not_free(clock: HandClock) -> None:
    """Nor is one whose price is the table's, whatever figures stand beside it."""
    spending = account(clock)
    spend(spending, 1.0)
    tabled = FREE.model_copy(
        update={"price": Price(input_usd_per_mtok=0, output_usd_per_mtok=0, table="openai")}
    )
    assert spending.enter(tabled) is not None
    assert spending.enter(FREE) is None
    spending.leave(FREE.arm, 0.01)
    assert spending.enter(FREE) is not None


def test_what_is_under_way_counts_with_its_mean(clock: HandClock) -> None:
    """Nine tries of 0.1 are enough for a cap of 1, when one has been paid."""
    spending = account(clock)
    spend(spending, 0.1)
    begun = 0
    while spending.enter(MINI) is None:
        begun += 1
    assert begun == 9


def test_a_new_hour_begins_at_nothing(clock: HandClock) -> None:
    """On the hour, in UTC."""
    spending = account(clock)
    spend(spending, 1.0)
    clock.seconds = 3_599
    assert spending.enter(MINI) is not None
    clock.seconds = 3_600
    assert spending.enter(MINI) is None
    assert spending.tell().spent_usd == 0


def test_an_account_goes_on_after_a_restart(clock: HandClock) -> None:
    """Within its hour; what was told under another unit or of another hour is void."""
    spending = account(clock)
    spend(spending, 0.75)
    told = WorkerSpend.parse(spending.tell().encode())
    again = account(clock)
    again.restore(told)
    assert again.tell() == told
    for changed in ({"per": "day"}, {"since": NOW.replace(hour=11)}):
        other = account(clock)
        other.restore(told.model_copy(update=changed))
        assert other.tell().spent_usd == 0


def test_means_are_kept_over_a_restart(clock: HandClock) -> None:
    """Also in another hour or unit: timeouts count as answers did, and free arms stay paid ones."""
    spending = account(clock)
    spend(spending, 0.1)
    spending.enter(FREE)
    spending.leave(FREE.arm, 0.01)
    told = WorkerSpend.parse(spending.tell().encode())
    for changed in ({}, {"per": "day"}, {"since": NOW.replace(hour=11)}):
        again = account(clock)
        again.restore(told.model_copy(update=changed))
        before_usd = again.tell().spent_usd
        assert again.enter(MINI) is None
        again.leave(MINI.arm, None, 0.7)
        assert again.tell().spent_usd == pytest.approx(before_usd + 0.1)
        spend(again, 1.0)
        assert again.enter(FREE) is not None


def test_no_more_means_are_told_than_a_record_may_have(clock: HandClock) -> None:
    """Those of the arms that were paid last."""
    spending = account(clock)
    for number in range(MOST_MEANS + 5):
        spending.leave(f"{number} {'x' * 120}", 0.0)
    spending.leave("0 " + "x" * 120, 0.0)
    encoded = spending.tell().encode()
    told = WorkerSpend.parse(encoded).mean_usd
    assert len(encoded) < 40_000
    assert [name.split()[0] for name in told] == [*map(str, range(6, MOST_MEANS + 5)), "0"]


def test_a_clock_that_steps_back_opens_no_account_anew(clock: HandClock) -> None:
    """Nor does it when it comes on again, or with a restart in between."""
    spending = account(clock)
    spend(spending, 1.0)
    told = spending.tell()
    clock.seconds = -1
    assert spending.enter(MINI) is not None
    assert spending.tell() == told
    again = account(clock)
    again.restore(told)
    clock.seconds = 1
    for one in (spending, again):
        assert one.enter(MINI) is not None
        assert one.tell() == told


def test_a_clock_that_was_far_ahead_locks_nothing(clock: HandClock) -> None:
    """What was spent in a month to come is not counted till then."""
    spending = account(clock)
    clock.seconds = 30 * 86_400
    spend(spending, 1.0)
    told = spending.tell()
    clock.seconds = 0
    spending.restore(told)
    assert spending.tell().spent_usd == 0
    assert spending.enter(MINI) is None


def test_days_begin_at_midnight(clock: HandClock) -> None:
    """A day's account starts with the day."""
    assert account(clock, "day").tell().since == NOW.replace(hour=0)
