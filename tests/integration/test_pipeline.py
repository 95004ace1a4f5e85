"""A query's way through running services, seen from the outside."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from metallm_stream.events import Decision, Feedback, Model
from metallm_stream.kafka import Record, write
from tests.pipeline import Pipeline, questions
from tests.processes import eventually


def test_every_query_gets_one_decision_and_one_result_and_teaches_once(running: Pipeline) -> None:
    """300 queries, labels for all: nothing lost, nothing doubled, model = fold of what happened."""
    queries = questions(300)
    running.ask(*queries)
    results = running.wait_for_results(300)
    running.judge(*(Feedback(query_id=query.query_id, label="yes") for query in queries))
    running.wait_until_learned()
    running.assert_sound(query.query_id for query in queries)
    rows = running.sql("SELECT count(*) AS n FROM metallm.interactions WHERE quality IS NOT NULL")
    assert rows[0]["n"] == 300
    spent = math.fsum(result.cost_usd for result in results.values())
    eventually(lambda: running.sql("SELECT sum(lag) AS lag FROM metallm.lag")[0]["lag"] == 0)
    booked = running.sql("SELECT sum(cost_usd) AS usd FROM metallm.interactions")[0]["usd"]
    assert float(str(booked)) == pytest.approx(spent, rel=1e-12)
    decided = [Decision.parse(item.value()) for item in running.read(running.names.decisions)]
    assert all(item.propensity is not None and 0 < item.propensity <= 1 for item in decided)
    assert len({item.arm for item in decided}) == 2


def test_the_learned_policy_comes_into_force(running: Pipeline) -> None:
    """Once labels have come, poems go to the arm that knows them, and the policy has a version."""
    eventually(lambda: running.sql("SELECT 1 FROM metallm.policies WHERE observations >= 290"))
    before = len(running.results())
    queries = [query for query in questions(400, 0)[300:] if query.task == "poems"]
    running.ask(*queries)
    results = running.wait_for_results(before + len(queries))
    answered = Counter(results[query.query_id].arm for query in queries)
    assert answered["large"] > 0.8 * len(queries)
    decisions = {
        item.query_id: item
        for item in (Decision.parse(m.value()) for m in running.read(running.names.decisions))
    }
    decision = decisions[queries[0].query_id]
    assert decision.policy_version > 0
    assert math.fsum(item.probability for item in decision.candidates) == pytest.approx(1)
    explained = running.sql(
        "SELECT * FROM metallm.explain(:query_id)", query_id=queries[0].query_id
    )
    assert {row["arm"] for row in explained} == {"large", "small"}


def test_a_model_added_at_noon_is_tried_and_a_removed_one_is_not(running: Pipeline) -> None:
    """The catalogue is followed while queries flow."""
    running.add_models(["newcomer"])
    running.wait_until_routed_among("large", "small", "newcomer")
    before = len(running.results())
    queries = [
        query.model_copy(update={"query_id": f"noon-{query.query_id}"}) for query in questions(60)
    ]
    running.ask(*queries)
    running.wait_for_results(before + 60)
    decided = [Decision.parse(item.value()) for item in running.read(running.names.decisions)]
    noon = [item for item in decided if item.query_id.startswith("noon-")]
    assert all("newcomer" in {c.arm for c in item.candidates} for item in noon)
    assert any(item.arm == "newcomer" for item in noon)
    write(running.producer, [Record(running.names.models, b"newcomer", None)])
    eventually(lambda: not running.sql("SELECT 1 FROM metallm.models WHERE arm = 'newcomer'"))
    running.wait_until_routed_among("large", "small")
    before = len(running.results())
    after = [
        query.model_copy(update={"query_id": f"dusk-{query.query_id}"}) for query in questions(30)
    ]
    running.ask(*after)
    running.wait_for_results(before + 30)
    decided = [Decision.parse(item.value()) for item in running.read(running.names.decisions)]
    dusk = [item for item in decided if item.query_id.startswith("dusk-")]
    assert {item.arm for item in dusk} <= {"large", "small"}


def test_an_arm_without_an_answer_falls_back_to_the_next(running: Pipeline) -> None:
    """The vendor does not know the newcomer: the other arm answers, and both attempts are told."""
    results = running.results()
    fell = [
        result
        for query_id, result in results.items()
        if query_id.startswith("noon-") and len(result.attempts) > 1
    ]
    assert fell
    for result in fell:
        assert result.attempts[0].arm == "newcomer"
        assert result.attempts[0].failure is not None
        assert result.arm in ("large", "small")
        assert result.attempts[-1].arm == result.arm


def test_a_price_change_is_followed(running: Pipeline) -> None:
    """The arm's record in a call is the newest one."""
    record = Model(arm="small", provider="recorded", model="small", tags=("repriced",))
    write(running.producer, [Record.of(running.names.models, "small", record)])

    def tags() -> tuple[str, ...]:
        return {model.arm: model.tags for model in running.probe()[1].ranking}["small"]

    eventually(lambda: tags() == ("repriced",))
