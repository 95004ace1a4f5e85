"""Budgets on running services: kept over restarts, booked exactly once, and told by SQL."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import text

from metallm_stream.events import BudgetAccount, Decision, Feedback, Model, Price, Query
from metallm_stream.kafka import Record, write
from tests.pipeline import Pipeline, kill, open_pipeline, outcomes, questions
from tests.processes import eventually

AMOUNT_USD = 0.003
BUDGETS = {
    "BUDGETS__ALL__AMOUNT_USD": str(AMOUNT_USD),
    "BUDGETS__TEAM__AMOUNT_USD": "0.02",
    "BUDGETS__TEAM__PER": "day",
    "BUDGETS__TEAM__METADATA_KEY": "team",
    "BUDGETS__TEAM__HARD": "true",
}


@pytest.fixture
def pipeline(kafka_bootstrap: str, database_url: str, tmp_path: Path) -> Iterator[Pipeline]:
    """Services with a budget for all, and a hard one for each team."""
    with open_pipeline(kafka_bootstrap, database_url, tmp_path) as opened:
        opened.record(outcomes(questions(900)), labels=("yes", "no"))
        yield opened


def asked(start: int, stop: int) -> list[Query]:
    """Questions of a team each, so that the teams' budgets do not bind."""
    return [
        query.model_copy(update={"metadata": {"team": f"t{row}"}})
        for row, query in enumerate(questions(stop - start, start), start)
    ]


def committed(pipeline: Pipeline, budget: str, queries: int) -> dict[str, float] | None:
    """The budget's figures in SQL, once all queries are booked and nothing is in flight."""
    rows = pipeline.sql(
        "SELECT sum(queries) AS queries, sum(spent_usd) AS spent_usd,"
        " sum(reserved_usd) AS reserved_usd FROM metallm.budgets WHERE budget = :budget",
        budget=budget,
    )
    figures = {name: float(str(value or 0)) for name, value in rows[0].items()}
    done = figures["queries"] == queries and abs(figures["reserved_usd"]) < 1e-9
    return figures if done else None


def test_a_budget_holds_over_restarts_and_sql_shows_it(pipeline: Pipeline) -> None:
    """900 queries, router and learner killed in the middle, a second router: within the budget.

    Without the budget half of the queries would go to an arm at more than three times the amount.
    """
    children = pipeline.start_all(**BUDGETS)
    for start in range(0, 900, 100):
        queries = asked(start, start + 100)
        pipeline.ask(*queries)
        if start == 300:
            kill(children["router"])
        if start == 500:
            kill(children["learner"])
        if start == 600:
            pipeline.start("router", slot="1", **BUDGETS).wait_ready(60)
        pipeline.wait_for_results(start + 100)
        pipeline.judge(*(Feedback(query_id=query.query_id, label="yes") for query in queries))
    pipeline.wait_until_learned()
    results = pipeline.results()
    spent = math.fsum(result.cost_usd for result in results.values())
    for budget in ("all", "team"):
        eventually(lambda budget=budget: committed(pipeline, budget, 900) is not None)
        figures = committed(pipeline, budget, 900)
        assert figures is not None
        assert figures["spent_usd"] == pytest.approx(spent)
    assert 0.5 * AMOUNT_USD * 900 < spent <= 1.02 * AMOUNT_USD * 900
    pipeline.assert_sound(f"q{number}" for number in range(900))
    decided = [Decision.parse(item.value()) for item in pipeline.read(pipeline.names.decisions)]
    assert all(item.budget_weight is not None for item in decided)
    assert max(item.budget_weight or 0.0 for item in decided) > 0.1
    published = [
        BudgetAccount.parse(item.value())
        for item in pipeline.read(pipeline.names.policy)
        if (item.key() or b"").startswith(b"budget/all/")
    ]
    assert published[-1].queries == 900


def test_a_hard_budget_refuses_with_its_name_while_the_learner_is_down(pipeline: Pipeline) -> None:
    """The router goes on with expected costs: it needs neither the learner nor PostgreSQL."""
    children = pipeline.start_all(**BUDGETS)
    first = asked(0, 100)
    pipeline.ask(*first)
    pipeline.wait_for_results(100)
    pipeline.wait_until_learned()
    eventually(lambda: committed(pipeline, "team", 100) is not None)
    eventually(
        lambda: any((m.key() or b"") == b"ridge" for m in pipeline.read(pipeline.names.policy))
    )
    children["learner"].stop()
    one = [query.model_copy(update={"metadata": {"team": "x"}}) for query in questions(100, 100)]
    pipeline.ask(*one)
    results = pipeline.wait_for_results(200)
    own = [results[query.query_id] for query in one]
    refused = [result.failure for result in own if result.failure is not None]
    assert refused
    assert all(failure.kind == "no_arm" for failure in refused)
    assert "budgets.team: " in refused[-1].message
    assert "of team 'x' of 0.02 USD a day" in refused[-1].message
    assert 0.01 < math.fsum(result.cost_usd for result in own) <= 0.02 + 1e-9


class Silent(BaseHTTPRequestHandler):
    """A host that answers yes, and tells neither tokens nor costs."""

    def do_POST(self) -> None:
        """Answer any request."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"choices": [{"message": {"content": "yes"}}]}')


@contextmanager
def silent_host() -> Iterator[str]:
    """The address of such a host."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_a_hard_budget_holds_where_the_host_tells_no_tokens(
    kafka_bootstrap: str, database_url: str, tmp_path: Path
) -> None:
    """What ten answers cost at most is more than the day's, for a router that starts anew too."""
    price = Price(input_usd_per_mtok=100, output_usd_per_mtok=100)
    model = Model(arm="large", provider="recorded", model="large", price=price)
    settings = {name: value for name, value in BUDGETS.items() if "TEAM" in name}
    with (
        silent_host() as url,
        open_pipeline(kafka_bootstrap, database_url, tmp_path) as pipeline,
    ):
        pipeline.vendor_url = url
        write(pipeline.producer, [Record.of(pipeline.names.models, model.arm, model)])
        children = pipeline.start_all(**settings)
        queries = questions(50)
        pipeline.ask(*queries[:10])
        results = pipeline.wait_for_results(10)
        tries = [item for result in results.values() for item in result.attempts]
        at_most_usd = math.fsum(item.at_most_usd or 0.0 for item in tries)
        assert len(tries) == 10
        assert at_most_usd > 0.02
        assert math.fsum(result.cost_usd for result in results.values()) == 0
        pipeline.wait_until_learned()
        eventually(lambda: committed(pipeline, "team", 10) is not None)
        figures = committed(pipeline, "team", 10)
        assert figures is not None
        assert figures["spent_usd"] == pytest.approx(at_most_usd)
        eventually(
            lambda: any(
                BudgetAccount.parse(item.value()).spent_usd > 0.02
                for item in pipeline.read(pipeline.names.policy)
                if (item.key() or b"").startswith(b"budget/")
            )
        )
        kill(children["router"])
        pipeline.ask(*queries[10:])
        later = [result for result in pipeline.wait_for_results(50).values() if not result.attempts]
        assert [item.failure and item.failure.kind for item in later] == ["no_arm"] * 40
        assert pipeline.sql("SELECT sum(cost_usd) AS usd FROM metallm.spend")[0]["usd"] in (0, None)


def test_an_account_that_nobody_has_used_for_long_is_forgotten_everywhere(
    pipeline: Pipeline,
) -> None:
    """In SQL and on the topic; the account of all queries stays, and users may return."""
    children = pipeline.start_all(**BUDGETS)
    pipeline.ask(*asked(0, 4))
    pipeline.wait_for_results(4)
    pipeline.wait_until_learned()
    eventually(lambda: committed(pipeline, "team", 4) is not None)
    children["learner"].stop()
    long_ago = "UPDATE metallm.budget_accounts SET updated_at = now() - interval '31 days'"
    with pipeline.engine.begin() as conn:
        conn.execute(text(f"{long_ago} WHERE key <> 't3'"))
    pipeline.start("learner", slot="1", **BUDGETS).wait_ready(60)
    accounts = "SELECT budget, key, queries FROM metallm.budgets ORDER BY budget, key"
    left = [("all", "", 4), ("team", "t3", 1)]
    eventually(lambda: [tuple(row.values()) for row in pipeline.sql(accounts)] == left)
    newest = {m.key(): m.value() for m in pipeline.read(pipeline.names.policy)}
    told = {
        key: value is None for key, value in newest.items() if (key or b"").startswith(b"budget")
    }
    gone = [b"budget/team/t0", b"budget/team/t1", b"budget/team/t2"]
    assert told == dict.fromkeys(gone, True) | {b"budget/all/": False, b"budget/team/t3": False}
    again = asked(4, 5)[0].model_copy(update={"metadata": {"team": "t0"}})
    pipeline.ask(again)
    pipeline.wait_for_results(5)
    back = [("all", "", 5), ("team", "t0", 1), ("team", "t3", 1)]
    eventually(lambda: [tuple(row.values()) for row in pipeline.sql(accounts)] == back)
