"""A policy of River's through running services: it chooses, is taught, dies and goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from metallm_stream.events import Decision, Feedback, PolicyManifest
from metallm_stream.kafka import Record, write
from metallm_stream.policy.river_policy import river_policy
from metallm_stream.policy.river_state import difference, from_bytes
from tests.pipeline import LABELS, Pipeline, kill, open_pipeline, outcomes, questions
from tests.processes import eventually

NAME = "river:LinUCBDisjoint"
SETTINGS = {
    "ROUTER__POLICY": NAME,
    "ROUTER__POLICY_PARAMETERS": '{"beta": 20.0}',
    "ROUTER__FLOOR": "0.1",
}
POLICY = river_policy(NAME, {"beta": 20.0})


@pytest.fixture(scope="module")
def river(
    kafka_bootstrap: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    """All services with River's policy, and 300 queries answered and judged."""
    directory = tmp_path_factory.mktemp("river")
    with open_pipeline(kafka_bootstrap, database_url, directory) as opened:
        opened.record(outcomes(questions(700)), labels=LABELS)
        opened.start_all(**SETTINGS)
        ask(opened, 0, 300)
        yield opened


def ask(pipeline: Pipeline, start: int, end: int) -> None:
    """Queries of these numbers, answered, judged and learned."""
    queries = questions(end - start, start)
    pipeline.ask(*queries)
    pipeline.wait_for_results(end)
    pipeline.judge(*(Feedback(query_id=query.query_id, label="yes") for query in queries))
    pipeline.wait_until_learned()


def decisions(pipeline: Pipeline) -> list[Decision]:
    return [Decision.parse(item.value()) for item in pipeline.read(pipeline.names.decisions)]


def test_it_chooses_with_exact_propensities_and_is_taught_each_answer(river: Pipeline) -> None:
    """Two arms at ε = 0.1: every candidate has 0.95 or 0.05; each judged answer is one lesson."""
    made = decisions(river)
    assert len(made) == 300
    for decision in made:
        assert decision.policy == NAME
        assert sorted(item.probability for item in decision.candidates) == [
            pytest.approx(0.05),
            pytest.approx(0.95),
        ]
        chosen = [item for item in decision.candidates if item.arm == decision.arm]
        assert decision.propensity == chosen[0].probability
    row = river.sql("SELECT * FROM metallm.river")[0]
    assert (row["policy"], row["slot"], row["lessons"]) == (NAME, "0", 300)
    assert (row["lessons_kept"], row["corrections"]) == (300, 0)


def test_what_it_has_learned_comes_into_force(river: Pipeline) -> None:
    """Poems go to the arm that knows them once the router has the state."""
    eventually(lambda: published(river) == 300)
    ask(river, 300, 400)
    late = [item for item in decisions(river) if int(item.query_id[1:]) >= 300]
    poems = [item for item in late if item.task == "poems"]
    assert sum(item.arm == "large" for item in poems) > 0.8 * len(poems)
    rows = river.sql("SELECT * FROM metallm.explain('q399')")
    assert math.fsum(float(str(row["probability"])) for row in rows) == pytest.approx(1)
    assert {row["policy"] for row in rows} == {NAME}


def published(pipeline: Pipeline) -> int:
    """Lessons in the newest policy on the topic."""
    heads = [
        PolicyManifest.parse(message.value()).river
        for message in pipeline.read(pipeline.names.policy)
        if message.key() == b"ridge"
    ]
    return 0 if not heads or heads[-1] is None else heads[-1].lessons


def test_a_killed_learner_goes_on_and_the_state_is_the_fold_of_its_lessons(
    river: Pipeline,
) -> None:
    """SIGKILL while labels come in: each is learned once, from the rows and from the log."""
    learner = river.supervisor.child("learner-0")
    queries = questions(100, 400)
    river.ask(*queries)
    river.wait_for_results(500)
    for number, query in enumerate(queries):
        river.judge(Feedback(query_id=query.query_id, label="yes"))
        if number == 50:
            kill(learner)
    river.wait_until_learned(90)
    row = river.sql("SELECT lessons FROM metallm.river")[0]
    assert row["lessons"] == 500
    taught = river.sql("SELECT count(DISTINCT query_id) AS n FROM metallm.river_lessons")
    assert taught[0]["n"] == 500
    river.assert_sound(f"q{number}" for number in range(500))
    assert river.rebuilt_river().difference <= 1e-9
    assert river.rebuilt_river(from_log=True).difference <= 1e-9
