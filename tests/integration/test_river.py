"""A policy of River's through running services: it chooses, is taught, dies and goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Decision, Feedback, PolicyManifest
from metallm_stream.join import Rewards
from metallm_stream.kafka import Record, write
from metallm_stream.policy.river_policy import river_policy
from metallm_stream.postgres import drop_days_before
from metallm_stream.serve.river import RiverPupil
from metallm_stream.serve.river_rebuild import (
    apply_corrections,
    rebuild_river,
    rebuild_river_from_log,
)
from tests.integration.test_cli import run
from tests.pipeline import LABELS, Pipeline, kill, open_pipeline, outcomes, questions
from tests.processes import eventually

NAME = "river:LinUCBDisjoint"
SETTINGS = {
    "ROUTER__POLICY": NAME,
    "ROUTER__POLICY_PARAMETERS": '{"beta": 20.0}',
    "ROUTER__FLOOR": "0.1",
}
POLICY, REWARDS = river_policy(NAME, {"beta": 20.0}), Rewards(0.1, 0.0, 10.0)
IDENTITY = ("wordllama-32", 32)


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
    queries, before = questions(end - start, start), len(pipeline.results())
    pipeline.ask(*queries)
    pipeline.wait_for_results(before + len(queries))
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


def test_what_people_read_works_as_with_other_policies(river: Pipeline) -> None:
    """Evaluation from the log, `watch`, `explain`, `doctor` and both rebuilds."""
    values = river.sql("SELECT * FROM metallm.policy_values WHERE value IS NOT NULL")
    assert {"always:large", "always:small", "logged"} <= {row["target"] for row in values}
    settings = {f"METALLM_{name}": value for name, value in SETTINGS.items()}
    for words in (
        ("watch", "--once"),
        ("explain", "q1"),
        ("doctor",),
        ("evaluate",),
        ("rebuild",),
        ("rebuild", "--from-log"),
    ):
        result = run(river, *words, **settings)
        assert result.exit_code == 0, (words, result.output)
        if words[0] == "rebuild":
            shown = "400 lessons, 0 of them corrected since and not applied"
            assert f"{NAME}: {shown}" in result.output
    refused = run(river, "rebuild", "--apply")
    assert refused.exit_code != 0


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
    learner = river.supervisor.children["learner-0"]
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
    assert_state_is_the_fold(river)
    log = (river.kafka, river.names, POLICY, REWARDS, *IDENTITY)
    assert rebuild_river_from_log(river.engine, *log).difference <= 1e-9


def assert_state_is_the_fold(pipeline: Pipeline) -> None:
    assert rebuild_river(pipeline.engine, POLICY, *IDENTITY).difference <= 1e-9


def test_a_second_learner_is_refused_and_the_first_goes_on(river: Pipeline) -> None:
    """It names the setting, the slot that teaches, and the ways out."""
    second = river.start("learner", slot="1", restart=False, **SETTINGS)
    assert second.wait_over(60) == 78
    log = (river.directory / "learner-1.log").read_text()
    assert "METALLM_SLOT=1" in log
    assert "METALLM_ROUTER__POLICY" in log
    assert "start it in the other's place with METALLM_SLOT=0" in log
    ask(river, 500, 520)
    assert river.sql("SELECT lessons FROM metallm.river")[0]["lessons"] == 520


def test_arms_come_and_go(river: Pipeline) -> None:
    """A query's own list holds, a new arm is tried, and a removed one is not."""
    river.add_models(["newcomer"])
    river.wait_until_routed_among("large", "small", "newcomer")
    only = [item.model_copy(update={"models": ("small",)}) for item in questions(20, 520)]
    before = len(river.results())
    river.ask(*only, *questions(60, 540))
    river.wait_for_results(before + 80)
    made = {int(item.query_id[1:]): item for item in decisions(river)}
    for number in range(520, 540):
        assert [item.probability for item in made[number].candidates] == [pytest.approx(1)]
        assert made[number].arm == "small"
    assert all(len(made[number].candidates) == 3 for number in range(540, 600))
    assert any(made[number].arm == "newcomer" for number in range(540, 600))
    write(river.producer, [Record(river.names.models, b"newcomer", None)])
    eventually(lambda: not river.sql("SELECT 1 FROM metallm.models WHERE arm = 'newcomer'"))
    river.wait_until_routed_among("large", "small")
    ask(river, 600, 620)
    made = {int(item.query_id[1:]): item for item in decisions(river)}
    assert all(len(made[number].candidates) == 2 for number in range(600, 620))


def test_corrections_are_counted_and_applied_by_a_replay(river: Pipeline) -> None:
    """One label reversed, one withdrawn, one reversed and back: two corrections, until applied."""
    at = datetime.now(UTC)
    for query_id, label, later in (("q0", "no", 1), ("q2", "no", 1), ("q2", "yes", 2)):
        given = at + timedelta(milliseconds=later)
        river.judge(Feedback(query_id=query_id, label=label, given_at=given))
    river.judge(Feedback(query_id="q4", withdrawn=True, given_at=at + timedelta(milliseconds=1)))
    river.wait_until_learned()
    row = river.sql("SELECT lessons, corrections FROM metallm.river")[0]
    assert row["corrections"] == 2
    assert_state_is_the_fold(river)
    settings = {f"METALLM_{name}": value for name, value in SETTINGS.items()}
    applied = run(river, "rebuild", "--apply", **settings)
    assert applied.exit_code == 0, applied.output
    assert "2 of them corrected since and now applied" in applied.output
    kept = river.sql("SELECT corrections, lessons_kept FROM metallm.river")[0]
    assert kept["corrections"] == 0
    assert_state_is_the_fold(river)
    ask(river, 620, 640)  # the learner finds itself fenced, ends, and goes on from the replay
    after = river.sql("SELECT lessons, lessons_kept FROM metallm.river")[0]
    assert int(str(after["lessons_kept"])) == int(str(kept["lessons_kept"])) + 20
    assert int(str(after["lessons"])) == int(str(row["lessons"])) + 20
    assert_state_is_the_fold(river)


def test_retention_moves_the_base(river: Pipeline) -> None:
    """Lessons go with their interactions, and the state is still the fold of what is kept."""
    pupil = RiverPupil(POLICY, REWARDS, slot="0", encoder=IDENTITY[0], dimensions=IDENTITY[1])
    with river.engine.begin() as conn:
        pupil.retain(conn)
    assert river.sql("SELECT lessons_kept FROM metallm.river")[0]["lessons_kept"] != 0
    with river.engine.begin() as conn:
        tomorrow = datetime.now(UTC).date() + timedelta(days=2)
        assert drop_days_before(conn, tomorrow, *IDENTITY).days
        pupil.retain(conn)
    assert river.sql("SELECT lessons_kept FROM metallm.river")[0]["lessons_kept"] == 0
    assert_state_is_the_fold(river)


def test_other_parameters_are_refused_until_their_policy_is_taught(river: Pipeline) -> None:
    """The refusal names the command, which teaches the new policy what is kept."""
    other = river_policy(NAME, {"beta": 5.0})
    pupil = RiverPupil(other, REWARDS, slot="0", encoder=IDENTITY[0], dimensions=IDENTITY[1])
    refused = pytest.raises(ConfigurationError, match="metallm rebuild --apply")
    with refused, river.engine.begin() as conn:
        pupil.claim(conn)
    ask(river, 640, 650)
    assert apply_corrections(river.engine, other, *IDENTITY).lessons == 10
    with river.engine.begin() as conn:
        pupil.claim(conn)
    assert rebuild_river(river.engine, other, *IDENTITY).difference <= 1e-9


def test_a_learner_of_sums_that_takes_partitions_stops_the_teaching(river: Pipeline) -> None:
    """Lessons would be missed: the first learner ends and names what it sees."""
    sums = river.start("learner", slot="2")
    log = river.directory / "learner-0.log"
    eventually(lambda: "must read every partition" in log.read_text(), 60)
    assert "METALLM_ROUTER__POLICY" in log.read_text()
    sums.stop()
