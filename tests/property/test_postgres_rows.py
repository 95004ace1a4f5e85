"""An interaction survives its way through a row, whatever its texts and numbers."""

from __future__ import annotations

from datetime import UTC, date, datetime

import orjson
from hypothesis import given
from hypothesis import strategies as st

from metallm_stream.events import Attempt, Decision, Failure, Feedback, Result, Verdict
from metallm_stream.join import Interaction
from metallm_stream.postgres.rows import COLUMNS, MAX_JSON_BYTES, from_row, storable, to_json

DAY = date(2026, 3, 1)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
texts = st.text(max_size=40)
clean = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=40)
names = clean.filter(bool)
moments = st.integers(0, 7_000_000_000).map(lambda second: datetime.fromtimestamp(second, UTC))
amounts = st.floats(min_value=0, max_value=1e9)
attempts = st.builds(
    Attempt,
    arm=names,
    started_at=st.just(NOW),
    latency_s=amounts,
    failure=st.none() | st.builds(Failure, kind=st.just("timeout"), message=clean),
    cost_usd=st.none() | amounts,
)
results = st.builds(
    Result,
    query_id=st.just("q"),
    arm=names,
    text=st.none() | clean,
    prediction=st.none() | clean,
    attempts=st.lists(attempts, max_size=3).map(tuple),
    cost_usd=amounts,
    finished_at=st.just(NOW),
)
decisions = st.builds(
    Decision,
    query_id=st.just("q"),
    fingerprint=names,
    query_partition=st.just(0),
    query_offset=st.integers(0, 2**62),
    asked_at=st.just(NOW),
    decided_at=moments,
    labels=st.none(),
    metadata=st.dictionaries(names, clean, max_size=3),
    encoder=names,
    context=st.binary(max_size=64),
    policy=names,
    policy_version=st.integers(0, 10**9),
    arm=names,
    propensity=st.floats(min_value=1e-9, max_value=1),
    candidates=st.just(()),
    cost_weight=st.floats(0, 100),
    latency_weight=st.floats(0, 100),
    cost_scale_usd=st.floats(min_value=1e-9, max_value=100),
    refusal=st.none(),
)
feedbacks = st.builds(
    Feedback,
    query_id=st.just("q"),
    feedback_id=st.none() | names,
    label=st.none(),
    score=st.floats(0, 1),
    given_at=moments,
)
verdicts = st.builds(
    Verdict,
    query_id=st.just("q"),
    call_id=names,
    arm=names,
    judge=names,
    template=names,
    score=st.floats(0, 1),
    failure=st.none(),
    weight=st.floats(0, 1),
    text=st.none() | clean,
    cost_usd=st.none() | amounts,
    finished_at=moments,
)


@given(
    st.none() | decisions,
    st.none() | results,
    st.lists(feedbacks, max_size=3),
    st.none() | verdicts,
)
def test_a_row_restores_its_interaction(
    decision: Decision | None,
    result: Result | None,
    feedback: list[Feedback],
    verdict: Verdict | None,
) -> None:
    """Every event comes back equal; columns are those of the statement."""
    whole = Interaction("q")
    for event in (decision, result, *feedback, verdict):
        whole = whole if event is None else whole.merged(event)
    (part,) = to_json([(DAY, whole)], {})
    (row,) = orjson.loads(part)
    assert set(row) <= set(COLUMNS)
    stored = {
        name: orjson.dumps(row[name]).decode() if row.get(name) is not None else None
        for name in ("decision", "result", "feedback", "verdict")
    }
    context = None if decision is None else bytes.fromhex(row["context"].removeprefix("\\x"))
    assert from_row("q", stored.pop("decision"), context, *stored.values()) == whole


@given(texts | st.text(st.characters(categories=["Cs", "Cc"])))
def test_storable_text_is_valid_and_otherwise_unchanged(value: str) -> None:
    """It encodes as UTF-8 without NUL, again is the same, and clean text is left alone."""
    kept = storable(value)
    assert kept is not None
    assert b"\x00" not in kept.encode()
    assert storable(kept) == kept
    if "\x00" not in value and not any("\ud800" <= one <= "\udfff" for one in value):
        assert kept == value


def test_large_batches_are_split_in_order() -> None:
    """No part is much larger than the limit, and no row is lost."""
    long = Result(query_id="q", arm="a", text="x" * 2**20, finished_at=NOW)
    rows = [(DAY, Interaction("q", result=long))] * 70
    parts = list(to_json(rows, {}))
    assert len(parts) == 3
    assert max(map(len, parts)) < MAX_JSON_BYTES + 2**21
    assert sum(len(orjson.loads(part)) for part in parts) == 70
    assert list(to_json([], {})) == []
