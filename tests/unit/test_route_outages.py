"""Arms that workers find down: whom routers believe, and what queries are decided meanwhile."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from metallm_stream.events import ArmHealth
from metallm_stream.policy import chooser
from metallm_stream.route import Arrival, Budget, Decided, Outages, Pacer, TradeOff, decide
from metallm_stream.route.decide import PROBE_SHARE
from metallm_stream.route.outages import LONGEST, PROBE_EVERY
from tests.unit.test_route_decide import ARMS, ENCODER, NOW, ask, catalogue, policy

SOON = NOW + timedelta(seconds=1)


def health(arm: str | None = "big", state: str = "open", slot: str = "0", **f: Any) -> ArmHealth:
    """A worker's word on an arm, valid for 15 s, to be tried again in 10 s."""
    known = {
        "provider": "recorded",
        "since": NOW,
        "valid_until": NOW + timedelta(seconds=15),
        "retry_at": NOW + timedelta(seconds=10) if state == "open" else None,
    }
    return ArmHealth(arm=arm, slot=slot, state=state, **(known | f))


def heard(*said: ArmHealth) -> Outages:
    outages = Outages()
    for one in said:
        outages.apply(one, NOW)
    return outages


def down(outages: Outages, now: datetime = SOON) -> list[str]:
    models = list(catalogue().arms.values())
    found = outages.down(models, now)
    return [arm for arm, is_down in zip(ARMS, found.mask, strict=True) if is_down]


def decided(
    outages: Outages,
    count: int = 40,
    *,
    now: datetime = SOON,
    seed: int = 1,
    rule: str = "uniform",
    pacer: Pacer | None = None,
    **query: Any,
) -> list[Decided]:
    arrivals = [
        Arrival(ask(query_id=f"q{row}", **query), 0, row, recorded_at=NOW) for row in range(count)
    ]
    return decide(
        arrivals,
        np.zeros((count, 2), np.float32),
        catalogue=catalogue(),
        published=policy(),
        chooser=chooser(rule),
        defaults=TradeOff(0.0, 0.0, 10.0),
        rng=np.random.default_rng(seed),
        now=now,
        encoder=ENCODER,
        pacer=pacer,
        outages=outages,
    )


def test_more_than_half_of_the_workers_must_find_an_arm_down() -> None:
    """One of two is not enough: its own calls fall to the next arm by themselves."""
    assert down(heard(health())) == ["big"]
    assert down(heard(health(), health(slot="1", state="closed"))) == []
    assert down(heard(health(), health(slot="1"))) == ["big"]
    assert down(heard(health(), health(slot="1"), health(slot="2", state="closed"))) == ["big"]


def test_the_newest_word_of_a_worker_counts() -> None:
    """Closed again is closed."""
    assert down(heard(health(), health(state="closed"))) == []


def test_a_provider_that_is_down_takes_its_arms_with_it() -> None:
    """Where connections fail, none of the provider's arms is up."""
    assert down(heard(health(None))) == list(ARMS)
    assert down(heard(health(None), health("big", "closed"))) == list(ARMS)
    assert down(heard(health(None, slot="1"), health("big", "closed"))) == ["mid", "mini"]
    assert down(heard(health(None, provider="elsewhere"))) == []


def test_the_word_of_a_worker_that_is_gone_expires() -> None:
    """After `valid_until`; and however far ahead its clock was, a minute after it was read."""
    assert down(heard(health()), NOW + timedelta(seconds=15)) == []
    ahead = heard(health(valid_until=NOW + timedelta(days=1)))
    assert down(ahead, NOW + LONGEST - timedelta(seconds=1)) == ["big"]
    assert down(ahead, NOW + LONGEST) == []


def test_an_arm_that_is_down_gets_no_queries() -> None:
    """It is no candidate and no fallback; what remains has probabilities that add up to 1."""
    for one in decided(heard(health())):
        assert one.decision.arm in ("mid", "mini")
        assert [c.arm for c in one.decision.candidates] == ["mid", "mini"]
        assert sum(c.probability for c in one.decision.candidates) == pytest.approx(1)
        assert {model.arm for model in one.ranking} == {"mid", "mini"}


def test_if_nothing_else_is_left_the_arm_is_asked() -> None:
    """Better a try than a failure that is sure."""
    everyone = decided(heard(health(None)))
    assert {one.decision.arm for one in everyone} == set(ARMS)
    (one,) = decided(heard(health()), 1, models=("big",))
    assert (one.decision.arm, one.decision.propensity) == ("big", 1.0)


def test_nobody_down_changes_nothing() -> None:
    """The same generator makes the same decisions as without outages."""
    assert decided(Outages(), seed=3) == decided(heard(health(state="closed")), seed=3)


def test_one_query_at_a_time_probes_an_arm_that_is_due() -> None:
    """It is drawn with a known probability, and the others as usual else."""
    outages = heard(health(retry_at=NOW))
    first = decided(outages)
    probing = [one for one in first if len(one.decision.candidates) == 3]
    (probe,) = probing
    probability = {c.arm: c.probability for c in probe.decision.candidates}
    assert probability == {
        "big": PROBE_SHARE,
        "mid": pytest.approx((1 - PROBE_SHARE) / 2),
        "mini": pytest.approx((1 - PROBE_SHARE) / 2),
    }
    assert probe.decision.propensity == pytest.approx(probability[probe.decision.arm or ""])
    assert len(probe.ranking) == 3


def test_after_a_probe_there_is_a_pause() -> None:
    """About one in two seconds, and the first of them soon."""
    outages = heard(health(retry_at=NOW, valid_until=NOW + timedelta(minutes=1)))
    moments = [NOW + timedelta(seconds=tenth / 10) for tenth in range(200)]
    probed = [
        now
        for number, now in enumerate(moments)
        if any(one.decision.arm == "big" for one in decided(outages, 3, now=now, seed=number))
    ]
    gaps = np.diff([now.timestamp() for now in probed])
    assert probed[0] - NOW < PROBE_EVERY
    assert gaps.min() >= PROBE_EVERY.total_seconds()
    assert gaps.max() < 2 * PROBE_EVERY.total_seconds()


def test_a_worker_whose_clock_is_ahead_delays_no_probe() -> None:
    """A try is due soon after its word was read, whatever hour it names."""
    hour = timedelta(hours=1)
    outages = heard(health(retry_at=NOW + hour, valid_until=NOW + hour))
    models = list(catalogue().arms.values())
    assert outages.down(models, SOON).due == ()
    assert outages.down(models, NOW + PROBE_EVERY).due == (ARMS.index("big"),)


def test_a_clock_put_back_delays_no_probe() -> None:
    """What was read at a later hour is void, and probes go on with the next word."""
    outages = heard(health(retry_at=NOW))
    outages.probe("big", NOW)
    earlier = NOW - timedelta(hours=1)
    assert down(outages, earlier) == []
    soon = earlier + timedelta(seconds=15)
    outages.apply(health(retry_at=earlier, valid_until=soon), earlier)
    models = list(catalogue().arms.values())
    assert outages.down(models, earlier).due == (ARMS.index("big"),)


def test_a_draw_is_as_probable_as_its_propensity() -> None:
    """Over many generators, the probed arm is drawn in half of the probes."""
    drawn = []
    for seed in range(300):
        (one,) = decided(heard(health(retry_at=NOW)), 1, seed=seed)
        drawn.append(one.decision.arm)
    share = drawn.count("big") / len(drawn)
    assert abs(share - PROBE_SHARE) < 0.12
    assert abs(drawn.count("mid") / len(drawn) - (1 - PROBE_SHARE) / 2) < 0.1


def test_constraints_hold_for_probes() -> None:
    """A query that does not allow the arm does not probe it."""
    outages = heard(health(retry_at=NOW))
    for query in ({"models": ("mid", "mini")}, {"max_cost_usd": 0.005}):
        for one in decided(outages, **query):
            assert {c.arm for c in one.decision.candidates} == {"mid", "mini"}


@pytest.mark.parametrize("amount_usd", [10.0, 0.002])
def test_budgets_and_outages_go_together(amount_usd: float) -> None:
    """Propensities add up to 1 under both; where the budget excludes the probe, there is none."""
    pacer = Pacer([Budget("all", amount_usd, "hour", hard=True)])
    for one in decided(heard(health(retry_at=NOW)), pacer=pacer):
        if one.decision.refusal is None:
            total = sum(c.probability for c in one.decision.candidates)
            assert total == pytest.approx(1)
