"""The demo's checks find what is wrong, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metallm_stream.cli.demo.books import Books, Ledger, Rebuild, Row, read_ledger
from metallm_stream.cli.demo.checks import count, violations
from metallm_stream.cli.demo.stranger import Log

QUERIES = ("a", "b")


def sound() -> tuple[Log, Books]:
    """A log of two queries and the books that fit; `b` was judged twice, wrongly at first."""
    candidates = [{"arm": "x", "probability": 0.75}, {"arm": "y", "probability": 0.25}]
    decision = {"arm": "x", "propensity": 0.75, "candidates": candidates}
    log = Log(
        queries={"a": [{}], "b": [{}, {}]},
        decisions={query_id: [dict(decision)] for query_id in QUERIES},
        calls={query_id: [{}] for query_id in QUERIES},
        results={query_id: [{"arm": "x", "cost_usd": 0.5}] for query_id in QUERIES},
        feedback={
            "b": [
                {"score": 0.9, "given_at": "2026-01-01T00:00:01.5Z"},
                {"score": 0.1, "given_at": "2026-01-01T00:00:01Z"},
            ]
        },
        ends={("decisions", 0): 7},
    )
    books = Books(
        rows={
            "a": Row("a", None, 0.5, is_decided=True, is_answered=True),
            "b": Row("b", 0.9, 0.5, is_decided=True, is_answered=True),
        },
        next_offsets={("decisions", 0): 8},
        ledger=Ledger(requests=3, first_usd=1.0, repeated=1, repeated_usd=0.5),
        labels_in_model=1.0,
        rebuild=Rebuild(1e-16, 2e-16),
    )
    return log, books


def test_a_sound_stream_has_no_findings() -> None:
    """A query asked twice, a corrected label and a repeated delivery are no violations."""
    log, books = sound()
    found = count(log, books, QUERIES)
    assert violations(log, books, QUERIES) == []
    assert (found.lost, found.doubled, found.unread, found.asked_again) == (0, 0, 0, 1)
    assert (found.labels_given, found.labels_counted, found.feedback_records) == (1, 1, 2)
    assert found.spend_usd == 1.0


def _without(mapping: dict[str, Any], key: str) -> None:
    del mapping[key]


BROKEN: dict[str, Callable[[Log], object]] = {
    "query a has 0 decisions": lambda log: _without(log.decisions, "a"),
    "query b has 2 decisions": lambda log: log.decisions["b"].append(log.decisions["a"][0]),
    "query a has 0 results": lambda log: _without(log.results, "a"),
    "query a has 2 results": lambda log: log.results["a"].append({"arm": "x", "cost_usd": 0.0}),
    "query a has 2 calls": lambda log: log.calls["a"].append({}),
    "query c has 1 results instead of 0": lambda log: log.results.update(
        c=[{"arm": "x", "cost_usd": 0.0}]
    ),
    "queries on the topic: 1": lambda log: _without(log.queries, "a"),
    "propensity 0, candidates": lambda log: log.decisions["a"][0].update(propensity=0),
    "propensity 1.5, candidates": lambda log: log.decisions["a"][0].update(propensity=1.5),
    "candidates add up to 0.5": lambda log: log.decisions["a"][0].update(
        propensity=0.5, candidates=[{"arm": "x", "probability": 0.5}]
    ),
    "propensity 0.25 differs": lambda log: log.decisions["a"][0].update(propensity=0.25),
    "query b was judged 0.2, but SQL has 0.9": lambda log: log.feedback["b"].append(
        {"score": 0.2, "given_at": "2026-01-01T00:00:02Z"}
    ),
    "query a was judged 0.5, but SQL has None": lambda log: log.feedback.update(
        a=[{"score": 0.5, "given_at": "2026-01-01T00:00:02Z"}]
    ),
    "dead-lettered: queries.dlq[0]@3": lambda log: log.dead_letters.append("queries.dlq[0]@3"),
    "has not read: 2": lambda log: log.ends.update({("decisions", 0): 10}),
    "USD spent in SQL: 1, but in the results: 1.25": lambda log: log.results["a"][0].update(
        cost_usd=0.75
    ),
}


@pytest.mark.parametrize(("finding", "breaking"), BROKEN.items(), ids=BROKEN.keys())
def test_what_is_wrong_on_the_topics_is_found(
    finding: str, breaking: Callable[[Log], object]
) -> None:
    """Each way to break the log is found and named with an example."""
    log, books = sound()
    breaking(log)
    assert any(finding in said for said in violations(log, books, QUERIES))


WRONG_BOOKS: dict[str, dict[str, Any]] = {
    "labels in the live model: 2, but given: 1": {"labels_in_model": 2.0},
    "vendor's book: 1.5": {"ledger": Ledger(first_usd=1.5)},
    "relative: 1e-16 from SQL, 1e-06 from the log": {"rebuild": Rebuild(1e-16, 1e-6)},
    "rows in SQL: 0": {"rows": {}},
    "has not read: 7": {"next_offsets": {}},
}


@pytest.mark.parametrize(("finding", "wrong"), WRONG_BOOKS.items(), ids=WRONG_BOOKS.keys())
def test_books_that_do_not_fit_are_found(finding: str, wrong: dict[str, Any]) -> None:
    """What SQL, the model or the vendor have differently is found."""
    log, books = sound()
    assert any(finding in said for said in violations(log, replace(books, **wrong), QUERIES))


def test_lost_and_doubled_are_counted_over_decisions_and_results() -> None:
    """A lost decision, a doubled result and a stray one are counted one each."""
    log, books = sound()
    del log.decisions["a"]
    log.results["b"].append({"arm": "x", "cost_usd": 0.0})
    log.results["stray"] = [{"arm": "x", "cost_usd": 0.0}]
    found = count(log, books, QUERIES)
    assert (found.lost, found.doubled) == (1, 2)


def test_the_ledger_tells_repeated_deliveries_from_first_ones(tmp_path: Path) -> None:
    """A second charge of one call at one model is a repetition; a failed try costs nothing."""
    entries = [("k1", "x", None, 1.0), ("k1", "x", None, 1.0), ("k1", "y", None, 2.0)]
    entries += [("k2", "x", "server_error", 0.0), ("k2", "x", None, 4.0)]
    path = tmp_path / "ledger.jsonl"
    with path.open("w") as file:
        for key, model, fault, cost_usd in entries:
            entry = {"idempotency_key": key, "model": model, "fault": fault, "cost_usd": cost_usd}
            file.write(json.dumps({**entry, "charged": fault is None}) + "\n")
    assert read_ledger(path) == Ledger(
        requests=5, failed=1, first_usd=7.0, repeated=1, repeated_usd=1.0
    )
