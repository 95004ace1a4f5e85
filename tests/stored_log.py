"""Stored decisions of all kinds, with what came of them, for tests of evaluation."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
from sqlalchemy import Engine

from metallm_stream.evaluate import LogEvaluation, PolicyValue
from metallm_stream.events import Attempt, Candidate, Decision, Failure, Feedback, Result
from metallm_stream.join import Interaction
from metallm_stream.postgres import load_for_update, save_interactions
from metallm_stream.postgres.outcomes import median_cost_scale_usd, stream_outcomes
from tests.integration.conftest import Sample
from tests.records import joined

TODAY = date(2026, 3, 1)
ARMS = ("mini", "large", "[odd] 'arm'")
FAILED = Failure(kind="timeout", message="no answer in 60 s")


def save(engine: Engine, interactions: list[Interaction]) -> None:
    """Write whole interactions."""
    with engine.begin() as conn:
        known = load_for_update(conn, [item.query_id for item in interactions], TODAY)
        save_interactions(conn, [(known[item.query_id][0], item) for item in interactions])


def life(sample: Sample, i: int, rng: np.random.Generator) -> Interaction:
    """A query as they come: arms not allowed, no policy yet, no label, failures, unknown costs.

    Some are decided under budgets, whose price is in the logged utilities.
    """
    allowed = [arm for arm in ARMS if rng.random() < 0.8] or ["mini"]
    probabilities = rng.dirichlet(np.ones(len(allowed)))
    drawn = int(rng.choice(len(allowed), p=probabilities))
    candidates: list[dict[str, Any]] = [
        {"arm": arm, "probability": float(p)} for arm, p in zip(allowed, probabilities, strict=True)
    ]
    budget_weight = (None, 0.0, 0.7, 1_000.0)[i % 4]
    if i > 40:
        for one in candidates:
            # Early predictions lie anywhere.
            quality, cost = float(3 * rng.random() - 1), float(rng.random() / 100)
            one.update(quality=quality, utility=round(quality - 10 * cost, 1))
            one["utility"] -= (budget_weight or 0.0) * cost / 0.01
            if rng.random() < 0.9:
                one.update(cost_usd=cost)
            if rng.random() < 0.9:
                one.update(latency_s=2.0)
    decision = sample.decision(
        i,
        arm=allowed[drawn],
        propensity=float(probabilities[drawn]),
        candidates=tuple(Candidate(**one) for one in candidates),
        task=("trivia", "code", None)[i % 3],
        cost_weight=0.0 if i % 5 == 0 else 0.1,
        latency_weight=0.2 if i % 7 == 0 else 0.0,
        # What the router knew of costs grew: nothing, then the cheap arms', then all.
        cost_scale_usd=1.0 if i <= 40 else 0.0005 if i <= 80 else 0.01,
        budget_weight=budget_weight,
    )
    events: list[Decision | Result | Feedback] = [decision]
    if i % 11:
        events.append(answer(sample, i, decision, rng))
    if rng.random() < 0.7:
        events.append(sample.feedback(i, "A" if rng.random() < 0.6 else "B"))
    return joined(*events)


def answer(sample: Sample, i: int, decision: Decision, rng: np.random.Generator) -> Result:
    """By the chosen arm, or after it failed by another, or by none; sometimes of unknown cost."""
    assert decision.arm is not None
    cost, latency = float(rng.random() / 50), float(rng.random() * 20)
    fields: dict[str, Any] = {"call_id": decision.call_id, "latency_s": latency, "cost_usd": cost}
    if i % 13 == 0:
        tried = Attempt(arm=decision.arm, started_at=sample.start, latency_s=1, failure=FAILED)
        return sample.result(
            i, None, failure=FAILED, text=None, prediction=None, attempts=(tried,), **fields
        )
    if i % 17 == 0:
        unpriced = Attempt(arm=decision.arm, started_at=sample.start, latency_s=1)
        return sample.result(i, decision.arm, attempts=(unpriced,), **fields)
    return sample.result(i, "large" if i % 19 == 0 else decision.arm, **fields)


def save_week(engine: Engine, sample: Sample) -> None:
    """Seven hundred queries of all kinds."""
    rng = np.random.default_rng(5)
    save(engine, [life(sample, i, rng) for i in range(700)])


def library(engine: Engine, metric: str, batch: int = 64, **chosen: Any) -> list[PolicyValue]:
    """What the library says of the same rows, in pieces."""
    evaluation = LogEvaluation(metric)
    wanted = {"since": None, "until": None, "task": None} | {
        name: chosen.pop(name) for name in ("since", "until", "task") if name in chosen
    }
    with engine.connect() as conn:
        median = median_cost_scale_usd(conn, **wanted)
        scales = {"cost_scale_usd": median, "latency_scale_s": 10.0} | chosen
        for decisions in stream_outcomes(conn, batch=batch, **wanted, **scales):
            assert len(decisions.rows) <= batch
            evaluation.add(decisions)
    return evaluation.values()
