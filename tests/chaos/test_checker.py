"""The checker finds each kind of violation in a history that has one, and none in a sound one."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from metallm_stream.providers import idempotency_key
from tests.chaos.checker import (
    BAD,
    INTENT,
    Account,
    Event,
    History,
    Progress,
    Seen,
    check,
    extra_calls,
    story,
)
from tests.chaos.checker.budgets import accounts_add_up

CONTEXT = bytes(range(8))
LABELS = {"labels": ["yes", "no"]}
COUNT = 4
FREE = COUNT - 1  # the query that a model judges
USD, JUDGE_USD, WEIGHT = 0.1, 0.02, 0.25


def seen(topic: str, offset: int, value: dict[str, Any] | None, **headers: str) -> Seen:
    """A record on partition 0, a second after the one before it."""
    key = (value or {}).get("query_id", "")
    return Seen(topic, 0, offset, 1_000.0 + offset, key, value, headers)


def sound() -> History:
    """Four queries decided, answered and judged once, the last by a model; and bad records."""
    records, rows, ledger = [], {}, []
    for number in range(COUNT):
        query_id, call_id = f"q{number}", f"c{number}"
        decision = {
            "query_id": query_id,
            "arm": "small",
            "propensity": 0.25,
            **({} if number == FREE else LABELS),
            "candidates": [
                {"arm": "small", "probability": 0.25},
                {"arm": "large", "probability": 0.75},
            ],
        }
        attempts = [{"arm": "small", "cost_usd": USD}]
        result = {
            "query_id": query_id,
            "call_id": call_id,
            "arm": "small",
            "text": "Hello." if number == FREE else "yes",
            "prediction": "yes",
            "cost_usd": USD,
            "attempts": attempts,
        }
        call = {"call_id": call_id, "query": {"query_id": query_id}, "ranking": [{"arm": "small"}]}
        asked = {"query_id": query_id, "text": "Is it so?", "metadata": {"team": f"t{number % 2}"}}
        context = base64.urlsafe_b64encode(CONTEXT).decode()
        records += [
            seen("queries", number, asked | ({} if number == FREE else LABELS)),
            seen("decisions", number, decision | {"context": context}),
            seen("calls.recorded", number, call),
            seen("results", number, result),
        ]
        if number != FREE:
            given = {"query_id": query_id, "label": "yes", "given_at": "2026-01-01T00:00:00Z"}
            records.append(seen("feedback", number, given))
        rows[query_id] = {
            "query_id": query_id,
            "arm": "small",
            "answered_by": "small",
            "propensity": 0.25,
            "prediction": "yes",
            "cost_usd": USD,
            "quality": None if number == FREE else 1.0,
            "judged_by": "model" if number == FREE else "user",
            "verdict": verdict() if number == FREE else None,
            "decision": decision,
            "context": CONTEXT,
            "result": result,
        }
        ledger.append({"idempotency_key": idempotency_key(call_id, "small")})
    records += [
        seen("cases", 0, case()),
        seen("verdicts", 0, verdict()),
        *(seen("health", number, told(0.01 * number)) for number in (1, 2)),
    ]
    judged = hashlib.sha256(f"c{FREE}\nverdict@1".encode()).hexdigest()[:32]
    for topic in ("queries", "feedback"):
        records += [
            seen(topic, COUNT, None, **{INTENT: BAD}),
            seen(f"{topic}.dlq", 0, None, **letter(COUNT), **{INTENT: BAD}),
        ]
    records += [seen("policy", version, manifest(version)) for version in (1, 2, 5)]
    return History(
        asked=frozenset(rows),
        records=tuple(records),
        rows=rows,
        dead_rows=(("queries", 0, COUNT), ("feedback", 0, COUNT)),
        ledger=tuple(ledger),
        judge_ledger=({"idempotency_key": idempotency_key(judged, "judge:strict")},),
        accounts={
            ("all", ""): Account(COUNT, USD * COUNT, 0.0),
            ("teams", "t0"): Account(COUNT // 2, USD * COUNT / 2, 1e-12),
            ("teams", "t1"): Account(COUNT // 2, USD * COUNT / 2, 0.0),
        },
        judges_usd=JUDGE_USD,
        observations={"small": FREE + WEIGHT},
        shifts=0,
        differences={"SQL": 1e-16, "the log": 0.0},
        spend_usd=USD * COUNT,
        progress=tuple(Progress(1_000.0 + n, "learner", "decisions[0]", n) for n in (0, 2, 2, 4)),
        events=(Event(1_001.5, "kill router-0"),),
    )


def case() -> dict[str, Any]:
    """The free text as the judge model is shown it."""
    whose = {"query_id": f"q{FREE}", "call_id": f"c{FREE}", "arm": "small"}
    return whose | {"question": "Is it so?", "answer": "Hello."}


def verdict() -> dict[str, Any]:
    """What the judge model says of the free text."""
    return {
        "query_id": f"q{FREE}",
        "call_id": f"c{FREE}",
        "arm": "small",
        "judge": "recorded/strict",
        "template": "verdict@1",
        "score": 0.9,
        "weight": WEIGHT,
        "cost_usd": JUDGE_USD,
    }


def told(spent_usd: float) -> dict[str, Any]:
    """What the judge says that it has spent."""
    since = "2026-01-01T00:00:00Z"
    return {"kind": "spend", "slot": "judge-0", "since": since, "spent_usd": spent_usd}


def letter(offset: int) -> dict[str, str]:
    """The headers of a dead letter."""
    return {"metallm.partition": "0", "metallm.offset": str(offset)}


def manifest(version: int) -> dict[str, Any]:
    """The head of a policy."""
    return {"kind": "manifest", "version": version}


def without(history: History, topic: str, offset: int) -> History:
    """The history without one record."""
    kept = tuple(item for item in history.records if item.place != (topic, 0, offset))
    return replace(history, records=kept)


def doubled(history: History, topic: str, offset: int) -> History:
    """The history with one record twice."""
    (found,) = (item for item in history.records if item.place == (topic, 0, offset))
    return replace(history, records=(*history.records, replace(found, offset=90)))


def more(history: History, *records: Seen) -> History:
    """The history with more records."""
    return replace(history, records=history.records + records)


def changed(history: History, topic: str, offset: int, **fields: Any) -> History:
    """The history with other values in one record."""
    records = tuple(
        replace(item, value={**(item.value or {}), **fields})
        if item.place == (topic, 0, offset)
        else item
        for item in history.records
    )
    return replace(history, records=records)


def row(history: History, query_id: str, **fields: Any) -> History:
    """The history with other values in one row."""
    return replace(history, rows={**history.rows, query_id: {**history.rows[query_id], **fields}})


def account(history: History, told: Account) -> History:
    """The history with other figures of the budget for all."""
    return replace(history, accounts={**history.accounts, ("all", ""): told})


def both(history: History, **fields: Any) -> History:
    """The history with a decision that says something else, on the topic and in SQL."""
    decision = {**history.rows["q1"]["decision"], **fields}
    flat = {name: value for name, value in fields.items() if name in history.rows["q1"]}
    return row(changed(history, "decisions", 1, **fields), "q1", decision=decision, **flat)


PLANTED: dict[str, tuple[str, str, Callable[[History], History]]] = {
    "query lost by the brokers": ("lost query", "q1", lambda h: without(h, "queries", 1)),
    "no decision": ("lost decisions", "q1", lambda h: without(h, "decisions", 1)),
    "two decisions": ("doubled decisions", "q1", lambda h: doubled(h, "decisions", 1)),
    "no result": ("lost results", "q1", lambda h: without(h, "results", 1)),
    "two results": ("doubled results", "q1", lambda h: doubled(h, "results", 1)),
    "a result for nobody": (
        "stray results",
        "q9",
        lambda h: more(h, seen("results", 9, {"query_id": "q9"})),
    ),
    "propensity 0": ("propensity", "q1", lambda h: both(h, propensity=0.0)),
    "propensity above 1": ("propensity", "q1", lambda h: both(h, propensity=1.5)),
    "propensity of another": ("propensity", "q1", lambda h: both(h, arm="large")),
    "no propensity": ("propensity", "q1", lambda h: both(h, propensity=float("nan"))),
    "a call that never left": ("call", "q1", lambda h: replace(h, ledger=h.ledger[:1] * 4)),
    "a call for nobody": (
        "stray call",
        "",
        lambda h: replace(h, ledger=(*h.ledger, {"idempotency_key": "nobody's"})),
    ),
    "another decision in SQL": ("row", "q1", lambda h: row(h, "q1", decision={"arm": "large"})),
    "another context in SQL": ("row", "q1", lambda h: row(h, "q1", context=b"")),
    "another result in SQL": ("row", "q1", lambda h: row(h, "q1", result={"arm": "small"})),
    "another arm in a column": ("row", "q1", lambda h: row(h, "q1", answered_by="large")),
    "no row": (
        "row",
        "q1",
        lambda h: replace(h, rows={k: v for k, v in h.rows.items() if k != "q1"}),
    ),
    "a row for nobody": (
        "row",
        "q9",
        lambda h: replace(h, rows={**h.rows, "q9": {**h.rows["q1"], "cost_usd": None}}),
    ),
    "label not counted": ("label", "q1", lambda h: row(h, "q1", quality=None)),
    "label judged wrongly": ("label", "q1", lambda h: row(h, "q1", quality=0.0)),
    "correction not counted": (
        "label",
        "q1",
        lambda h: more(
            h,
            seen(
                "feedback",
                9,
                {"query_id": "q1", "score": 0.5, "given_at": "2026-01-01T00:00:01Z"},
            ),
        ),
    ),
    "withdrawal not counted": (
        "label",
        "q1",
        lambda h: more(
            h,
            seen(
                "feedback",
                9,
                {"query_id": "q1", "withdrawn": True, "given_at": "2026-01-01T00:00:01Z"},
            ),
        ),
    ),
    "label counted twice in the model": (
        "labels in the model",
        "",
        lambda h: replace(h, observations={"small": FREE + WEIGHT + 1.0}),
    ),
    "a model that is not its log": (
        "model",
        "",
        lambda h: replace(h, differences={"SQL": 0.0, "the log": 1e-6}),
    ),
    "a model that is no number": (
        "model",
        "",
        lambda h: replace(h, differences={"SQL": float("nan")}),
    ),
    "spend booked twice": ("spend", "", lambda h: replace(h, spend_usd=USD * (COUNT + 1))),
    "judges' spend in the users'": (
        "spend",
        "",
        lambda h: replace(h, spend_usd=USD * COUNT + JUDGE_USD),
    ),
    "a query twice in a budget": ("budget", "", lambda h: account(h, Account(5, 0.4, 0.0))),
    "a cost twice in a budget": ("budget", "", lambda h: account(h, Account(4, 0.5, 0.0))),
    "a reserve that stays": ("budget", "", lambda h: account(h, Account(4, 0.4, 0.1))),
    "no account": ("budget", "", lambda h: replace(h, accounts={})),
    "no case": ("case", "q3", lambda h: without(h, "cases", 0)),
    "two cases": ("case", "q3", lambda h: doubled(h, "cases", 0)),
    "a case of another answer": ("case", "q3", lambda h: changed(h, "cases", 0, arm="large")),
    "a case with another answer": ("case", "q3", lambda h: changed(h, "cases", 0, answer="yes")),
    "a case with another question": ("case", "q3", lambda h: changed(h, "cases", 0, question="?")),
    "a score of another answer": ("score", "q3", lambda h: changed(h, "verdicts", 0, score=0.2)),
    "another weight": ("score", "q3", lambda h: changed(h, "verdicts", 0, weight=1.0)),
    "no score at all": (
        "verdict",
        "",
        lambda h: more(
            without(h, "verdicts", 0), *(seen("cases", n, case()) for n in range(1, 20))
        ),
    ),
    "a case for a label": ("case", "q1", lambda h: changed(h, "cases", 0, query_id="q1")),
    "no verdict": ("verdict", "q3", lambda h: without(h, "verdicts", 0)),
    "two verdicts": ("verdict", "q3", lambda h: doubled(h, "verdicts", 0)),
    "a verdict on another answer": (
        "verdict",
        "q3",
        lambda h: changed(h, "verdicts", 0, call_id="c1"),
    ),
    "a verdict that nobody gave": ("verdict", "q3", lambda h: replace(h, judge_ledger=())),
    "a judge asked for nobody": (
        "stray call",
        "",
        lambda h: replace(h, judge_ledger=(*h.judge_ledger, {"idempotency_key": "nobody's"})),
    ),
    "another verdict in SQL": ("row", "q3", lambda h: row(h, "q3", verdict={"score": 0.9})),
    "a user's word taken for a model's": ("row", "q1", lambda h: row(h, "q1", judged_by="model")),
    "a verdict counted whole": (
        "labels in the model",
        "",
        lambda h: replace(h, observations={"small": float(COUNT)}),
    ),
    "verdicts booked twice": ("spend", "", lambda h: replace(h, judges_usd=2 * JUDGE_USD)),
    "a judge that tells of too little": ("told spend", "", lambda h: without(h, "health", 2)),
    "a judge's spending that goes back": (
        "told spend",
        "",
        lambda h: more(h, seen("health", 3, told(0.01))),
    ),
    "spend lost in a row": ("spend", "", lambda h: row(h, "q1", cost_usd=None)),
    "bad record without dead letter": (
        "dead letter",
        "",
        lambda h: without(h, "queries.dlq", 0),
    ),
    "dead letter of a good record": (
        "dead letter",
        "q1",
        lambda h: more(h, seen("queries.dlq", 9, None, **letter(1))),
    ),
    "dead letter twice": ("dead letter", "", lambda h: doubled(h, "queries.dlq", 0)),
    "dead letter not in SQL": ("dead letter", "", lambda h: replace(h, dead_rows=h.dead_rows[:1])),
    "an offset that went back": (
        "position",
        "",
        lambda h: replace(
            h, progress=(*h.progress, Progress(1_009.0, "learner", "decisions[0]", 3))
        ),
    ),
    "an older policy": ("policy", "", lambda h: more(h, seen("policy", 9, manifest(4)))),
}


def test_a_sound_history_has_no_violations() -> None:
    """Nothing is found where nothing is wrong, and nothing was asked more often than needed."""
    assert check(sound()) == []
    assert extra_calls(sound()) == 0


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_found_and_told(name: str) -> None:
    """Its kind and query are named, and the story has that query's records alone, by the time."""
    kind, query_id, plant = PLANTED[name]
    history = plant(sound())
    found = [item for item in check(history) if (item.kind, item.query_id) == (kind, query_id)]
    assert found, check(history)
    told = story(history, found[0])
    assert told.startswith(f"{kind}: {query_id}")
    if query_id == "q1":
        records = [line for line in told.splitlines() if "@" in line]
        assert records == sorted(records)
        assert all('"q1"' in line for line in records if "dlq" not in line)
        assert "*** kill router-0" in told


def test_what_may_happen_more_than_once_is_no_violation() -> None:
    """Repeated queries and judgements, calls made again, and the learner's dead letters."""
    history = sound()
    for topic in ("queries", "feedback"):
        history = doubled(history, topic, 1)
    history = doubled(history, "feedback.dlq", 0)
    history = replace(history, ledger=(*history.ledger, *history.ledger[:2]))
    assert check(history) == []
    assert extra_calls(history) == 2


def test_after_a_shift_labels_need_not_count_whole() -> None:
    """Where drift was found, what the model holds of older labels is less than their number."""
    history = replace(sound(), observations={"small": 1.5}, shifts=1)
    assert check(history) == []


def test_budgets_count_what_a_failed_try_may_have_cost() -> None:
    """As much as was reserved: of a try that ran into its timeout nobody tells the cost."""
    timeout = {"arm": "small", "failure": {"kind": "timeout", "message": "by the test"}}
    attempts = [timeout, {"arm": "small", "cost_usd": USD}]
    history = changed(sound(), "decisions", 0, reserved_usd=0.05)
    history = changed(history, "results", 0, attempts=attempts)
    assert len(list(accounts_add_up(history))) == 2
    accounts = {
        place: replace(told, spent_usd=told.spent_usd + 0.05) if place[1] != "t1" else told
        for place, told in history.accounts.items()
    }
    assert not list(accounts_add_up(replace(history, accounts=accounts)))
