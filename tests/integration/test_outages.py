"""What goes on while a part is down, and what is made up for when it returns."""

from __future__ import annotations

from sqlalchemy import NullPool, create_engine, make_url, text

from metallm_stream.events import Decision, Feedback
from tests.pipeline import LABELS, Pipeline, kill, outcomes, questions
from tests.processes import eventually

REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'refused by the test'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON metallm.interactions
    FOR EACH ROW WHEN (NEW.query_id = 'q7') EXECUTE FUNCTION refuse();
"""


def test_a_restarted_router_still_knows_which_queries_it_has_decided(pipeline: Pipeline) -> None:
    """The window comes back from the decisions themselves, whatever else is among them."""
    queries = questions(40)
    pipeline.record(outcomes(queries), labels=LABELS)
    router = pipeline.start("router")
    worker = pipeline.start("worker", "--provider", "recorded")
    router.wait_ready(60)
    worker.wait_ready(60)
    pipeline.ask(*queries[:20])
    pipeline.wait_for_results(20)
    pipeline.produce(pipeline.names.decisions, b"no decision", b"\xff")
    kill(router)
    pipeline.ask(*queries)
    pipeline.wait_for_results(40)
    keys = [item.key() or b"" for item in pipeline.read(pipeline.names.decisions)]
    keys.remove(b"\xff")
    assert sorted(keys) == sorted(query.query_id.encode() for query in queries)


def test_the_window_of_recent_ids_comes_back_whole(pipeline: Pipeline) -> None:
    """Also where each decision had a transaction of its own, whose marker takes an offset too."""
    queries = questions(19)
    pipeline.record(outcomes(queries), labels=LABELS)
    router = pipeline.start("router", ROUTER__RECENT_IDS="20")
    router.wait_ready(60)
    for count, query in enumerate(queries, 1):
        pipeline.ask(query)
        eventually(lambda wanted=count: len(pipeline.read(pipeline.names.decisions)) == wanted)
    kill(router)
    fresh = questions(20)[19]
    pipeline.ask(*queries, fresh)
    eventually(lambda: len(pipeline.read(pipeline.names.decisions)) >= 20, 40)
    keys = [item.key() or b"" for item in pipeline.read(pipeline.names.decisions)]
    assert sorted(keys) == sorted(query.query_id.encode() for query in [*queries, fresh])


def test_queries_flow_while_postgres_is_down(pipeline: Pipeline) -> None:
    """Router and worker need no database; the learner makes up for the outage."""
    queries = questions(120)
    pipeline.record(outcomes(queries), labels=LABELS)
    children = pipeline.start_all()
    pipeline.ask(*queries[:60])
    pipeline.judge(*(Feedback(query_id=query.query_id, label="yes") for query in queries[:60]))
    pipeline.wait_for_results(60)
    eventually(lambda: pipeline.sql("SELECT 1 FROM metallm.policies WHERE observations >= 59"))
    allow_connections(pipeline, "false")
    eventually(lambda: children["learner"].exit_codes)
    pipeline.ask(*queries[60:])
    pipeline.judge(*(Feedback(query_id=query.query_id, label="yes") for query in queries[60:]))
    pipeline.wait_for_results(120)
    decided = [Decision.parse(item.value()) for item in pipeline.read(pipeline.names.decisions)]
    assert all(item.policy_version > 0 for item in decided if int(item.query_id[1:]) >= 60)
    allow_connections(pipeline, "true")
    pipeline.wait_until_learned(90)
    pipeline.assert_sound(query.query_id for query in queries)


def test_a_learning_transaction_that_fails_leaves_nothing_behind(pipeline: Pipeline) -> None:
    """While one row cannot be written nothing of its batch is, offsets included; then all is."""
    queries = questions(30)
    pipeline.record(outcomes(queries), labels=LABELS)
    with pipeline.engine.begin() as conn:
        conn.execute(text(REFUSE))
    children = pipeline.start_all()
    pipeline.ask(*queries)
    pipeline.judge(*(Feedback(query_id=query.query_id, label="yes") for query in queries))
    pipeline.wait_for_results(30)
    eventually(lambda: len(children["learner"].exit_codes) >= 2, 60)
    assert not pipeline.sql("SELECT 1 FROM metallm.interactions WHERE query_id = 'q7'")
    with pipeline.engine.begin() as conn:
        conn.execute(text("DROP TRIGGER refuse ON metallm.interactions"))
    pipeline.wait_until_learned(90)
    pipeline.assert_sound(query.query_id for query in queries)
    assert (
        pipeline.sql(
            "SELECT count(*) AS n FROM metallm.interactions WHERE quality = 1 OR quality = 0"
        )[0]["n"]
        == 30
    )


def allow_connections(pipeline: Pipeline, allowed: str) -> None:
    """Shut the pipeline's database, ending every session, or open it again."""
    url = make_url(pipeline.database_url)
    pipeline.engine.dispose()
    admin = create_engine(
        url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool
    )
    with admin.connect() as conn:
        conn.execute(text(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS {allowed}"))
        if allowed == "false":
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
            conn.execute(text(end), {"name": url.database})
