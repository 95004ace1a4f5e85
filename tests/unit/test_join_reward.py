"""What a complete interaction is worth to a policy of River's."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from metallm_stream.events import Attempt, Candidate, Decision, Failure, Feedback, Result
from metallm_stream.join import Interaction, Rewards
from tests.records import decision

AT = datetime(2026, 3, 1, tzinfo=UTC)
REWARDS = Rewards(cost_weight=0.2, latency_weight=0.1, latency_scale_s=10.0)
DECISION = decision(
    encoder="e",
    policy="river:LinUCBDisjoint",
    arm="a",
    cost_weight=9.0,  # the query's own trade-off is another
    latency_weight=9.0,
    cost_scale_usd=0.02,
)


def attempt(arm: str, **fields: object) -> Attempt:
    return Attempt.model_validate(
        {"arm": arm, "started_at": AT, "latency_s": 2.0, "cost_usd": 0.01} | fields
    )


def interaction(*parts: Decision | Result | Feedback) -> Interaction:
    joined = Interaction("q")
    for part in parts:
        joined = joined.merged(part)
    return joined


def result(*attempts: Attempt, arm: str | None = "a", **fields: object) -> Result:
    known = {"query_id": "q", "arm": arm, "prediction": "x", "finished_at": AT, "cost_usd": 5.0}
    return Result.model_validate(known | {"attempts": attempts} | fields)


GOOD = Feedback(query_id="q", score=0.9, given_at=AT)


def test_it_is_quality_less_weighted_cost_and_latency() -> None:
    """By the default weights, the decision's scale, and the answering arm's own tries."""
    broken = attempt("b", failure=Failure(kind="timeout", message=""))
    reward = REWARDS.of(interaction(DECISION, result(broken, attempt("a")), GOOD), "e")
    assert reward is not None
    assert (reward.arm, reward.context) == ("a", DECISION.context)
    assert reward.reward == pytest.approx(0.9 - 0.2 * 0.01 / 0.02 - 0.1 * 2.0 / 10.0)


def test_what_is_not_known_costs_nothing() -> None:
    """Neither money nor time."""
    found = REWARDS.of(interaction(DECISION, result(attempt("a", cost_usd=None)), GOOD), "e")
    assert found is not None
    assert found.reward == pytest.approx(0.9 - 0.1 * 0.2)
    bare = REWARDS.of(interaction(DECISION, result(), GOOD), "e")
    assert bare is not None
    assert bare.reward == pytest.approx(0.9)


def test_it_is_cut_at_one_either_way() -> None:
    """A single absurd latency must not outweigh everything."""
    slow = result(attempt("a", latency_s=10_000.0))
    found = REWARDS.of(interaction(DECISION, slow, GOOD), "e")
    assert found is not None
    assert found.reward == -1.0


@pytest.mark.parametrize(("known_usd", "relative"), [(None, 1.0), (0.02, 1.5)])
def test_a_cost_that_nobody_knew_takes_the_cost_weight_at_most(
    known_usd: float | None, relative: float
) -> None:
    """It is not in the scale of the arm's first decisions, which may be far below it."""
    candidates = tuple(Candidate(arm=arm, probability=0.5, cost_usd=known_usd) for arm in "ab")
    decided = DECISION.model_copy(update={"candidates": candidates})
    dear = result(attempt("a", cost_usd=0.03, latency_s=0.0))
    found = REWARDS.of(interaction(decided, dear, GOOD), "e")
    assert found is not None
    assert found.reward == pytest.approx(0.9 - 0.2 * relative)


@pytest.mark.parametrize(
    "parts",
    [
        (DECISION, result(attempt("a"))),
        (DECISION, GOOD),
        (result(attempt("a")), GOOD),
        (DECISION, result(attempt("a")), Feedback(query_id="q", withdrawn=True, given_at=AT)),
        (
            DECISION,
            result(arm=None, prediction=None, failure=Failure(kind="timeout", message="")),
            GOOD,
        ),
    ],
)
def test_what_is_not_complete_teaches_nothing(parts: tuple[Decision | Result | Feedback]) -> None:
    """Without decision, answer or judgement, and for a failure."""
    assert REWARDS.of(interaction(*parts), "e") is None


def test_nothing_and_another_encoder_teach_nothing() -> None:
    """A context of another encoder means something else."""
    assert REWARDS.of(None, "e") is None
    assert REWARDS.of(interaction(DECISION, result(attempt("a")), GOOD), "other") is None
