"""What is written of a decided batch is what the event models would write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from metallm_stream.events import LATEST, Call, Choice, Number, Query
from metallm_stream.policy import Beliefs, Chooser, chooser
from metallm_stream.route import Arrival, Budget, Decided, Pacer, TradeOff, decide
from metallm_stream.route.records import MAX_RANKING
from tests.property.test_route import ARMS, NAMES, NOW, SEEDS, D, catalogue, policy

WORDS = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=9
) | st.sampled_from(["\x7f\x1f\x01\b\f\n\r\t", '"\\/', "\u2028\ud7ff\ufeff", "\U0010ffff"])
FIRST, LAST = datetime(1970, 1, 2), datetime(2200, 12, 30)  # noqa: DTZ001 - Hypothesis puts in the zone
DECIDED = st.datetimes(FIRST, LAST, timezones=st.just(UTC))
ZONES = st.integers(-23, 23).map(lambda hours: timezone(timedelta(hours=hours)))
MOMENTS = st.datetimes(FIRST, LAST, timezones=ZONES)
FORMS = st.one_of(
    st.builds(Number, kind=st.just("number"), tolerance=st.floats(0, 1e12)),
    st.just(Choice(kind="choice", options=("one", "zwei"))),
)
QUERIES = st.builds(
    lambda form, fields: Query(**fields, **form),
    st.fixed_dictionaries({}, optional={"labels": st.lists(WORDS, min_size=1).map(tuple)})
    | st.fixed_dictionaries({"answer": FORMS}),
    st.fixed_dictionaries(
        {"query_id": WORDS, "text": WORDS},
        optional={
            "task": WORDS,
            "system": WORDS,
            "metadata": st.dictionaries(WORDS, WORDS, max_size=3),
            "cost_weight": st.floats(0, 1e6),
            "latency_weight": st.floats(0, 1e6),
            "max_cost_usd": st.floats(1e-6, 1.0),
            "models": st.lists(st.sampled_from((*NAMES, "gone")), min_size=1).map(tuple),
            "deadline_s": st.floats(1e-3, 86_400),
            "asked_at": MOMENTS,
        },
    ),
)
PACERS = st.none() | st.builds(
    lambda usd, hard: Pacer([Budget("all", usd, "query", hard=hard)]),
    st.floats(1e-9, 1.0),
    st.booleans(),
)


def batch(
    arrivals: list[Arrival],
    windows: dict[str, int | None],
    *,
    rule: Chooser | None = None,
    cost_weight: float = 0.1,
    pacer: Pacer | None = None,
    seed: int = 1,
    now: datetime = NOW,
) -> list[Decided]:
    rng = np.random.default_rng(seed)
    return decide(
        arrivals,
        rng.normal(size=(len(arrivals), D)).astype(np.float32),
        catalogue=catalogue(windows),
        published=policy(seed),
        chooser=chooser() if rule is None else rule,
        defaults=TradeOff(cost_weight, 0.1, 5.0),
        rng=rng,
        now=now,
        encoder="e",
        pacer=pacer,
    )


@given(
    queries=st.lists(QUERIES, max_size=6),
    windows=ARMS,
    pacer=PACERS,
    seed=SEEDS,
    now=DECIDED,
)
def test_records_are_written_as_the_event_models_write_them(
    queries: list[Query],
    windows: dict[str, int | None],
    pacer: Pacer | None,
    seed: int,
    now: datetime,
) -> None:
    """Byte for byte: refusals, budgets, forms of answers, and costs that are not known included."""
    arrivals = [Arrival(query, 2, row, NOW) for row, query in enumerate(queries)]
    decided = batch(arrivals, windows, pacer=pacer, seed=seed, now=now)
    for arrival, item in zip(arrivals, decided, strict=True):
        query, decision = arrival.query, item.decision
        assert item.value == decision.encode()
        assert decision.call_id == arrival.call_id
        asked = (decision.task, decision.labels, decision.answer, decision.metadata)
        assert asked == (query.task, query.labels, query.answer, query.metadata)
        assert (decision.budget_weight is None) == (pacer is None)
        if decision.refusal is not None:
            assert (item.call, item.ranking) == (None, ())
            continue
        call = Call(
            call_id=arrival.call_id,
            query=query,
            ranking=item.ranking[:MAX_RANKING],
            decided_at=now,
            deadline_at=query.deadline_at(decision.asked_at),
        )
        assert item.call == call.encode()
        assert call.deadline_at is None or call.deadline_at <= LATEST


class Astray:
    """A chooser that loses its way at the second query of a batch."""

    name = "astray"

    def probabilities(
        self, beliefs: Beliefs, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.float64]:
        """No number for the second query."""
        probabilities = chooser("uniform").probabilities(beliefs, allowed)
        probabilities[1] = np.nan
        return probabilities


def test_numbers_that_no_decision_may_hold_are_not_written() -> None:
    """One among those of a batch ends it: what is not a number, and what is out of bounds."""
    queries = [Query(query_id=f"q{row}", text="t") for row in range(3)]
    arrivals = [Arrival(query, 2, row, NOW) for row, query in enumerate(queries)]
    windows = dict.fromkeys(NAMES)
    assert len(batch(arrivals, windows)) == 3
    with pytest.raises(ValidationError, match="propensity"):
        batch(arrivals, windows, rule=Astray())
    own = Query(query_id="q", text="t", cost_weight=0.3)
    with pytest.raises(ValidationError, match="cost_weight"):
        batch([Arrival(own, 2, 9, NOW), *arrivals], windows, cost_weight=1e7)
