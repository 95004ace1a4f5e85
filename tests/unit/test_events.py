"""What the records of users must be to be let in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from confluent_kafka import Message
from pydantic import ValidationError

from metallm_stream.errors import InvalidEvent
from metallm_stream.events import LATEST, Call, Event, Feedback, Model, Query, query_id_in
from metallm_stream.kafka import recorded_at

QUERY = {"query_id": "q", "text": "Is it so?"}
FEEDBACK = {"query_id": "q", "label": "yes"}
MODEL = {"arm": "mini", "provider": "openai", "model": "gpt-4o-mini"}


def parse(record: type[Event], fields: dict[str, Any]) -> Event:
    return record.parse(orjson.dumps(fields))


def reason(record: type[Event], raw: bytes | None) -> str:
    with pytest.raises(InvalidEvent) as refused:
        record.parse(raw)
    return refused.value.reason


@pytest.mark.parametrize(
    ("raw", "query_id"),
    [
        (b'{"query_id": "q-1", "txet": "Why?"}', "q-1"),
        (b'{"query_id": "q-1", "text": "t", "schema_version": 2}', "q-1"),
        (b'{"query_id": 7, "text": "t"}', None),
        (b'{"query_id": "", "text": "t"}', None),
        (b'{"query_id": "\\u0000", "text": "t"}', None),
        (orjson.dumps({"query_id": "x" * 257}), None),
        (b'{"text": "t"}', None),
        (b'["q-1"]', None),
        (b'{"query_id": "q-1", "text": "\xff"}', None),
        (b'{"query_id": "q-1"', None),
        (b"", None),
    ],
)
def test_the_id_of_what_is_no_query_is_read_if_it_is_one(raw: bytes, query_id: str | None) -> None:
    """So that what is said of it can be found by its sender."""
    assert query_id_in(raw) == query_id


def test_a_query_needs_an_id_and_a_text_only() -> None:
    """Everything else has a default, or is left to the service's settings."""
    query = Query.parse(orjson.dumps(QUERY))
    assert (query.query_id, query.text, query.metadata) == ("q", "Is it so?", {})
    assert query.model_dump(exclude_none=True).keys() == {
        "schema_version",
        "query_id",
        "text",
        "metadata",
    }


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("query_id", "", "at least 1 character"),
        ("query_id", "x" * 257, "at most 256 characters"),
        ("query_id", "a\x00b", "NUL character"),
        ("query_id", 7, "valid string"),
        ("query_id", None, "valid string"),
        ("text", "", "at least 1 character"),
        ("text", "x" * 200_001, "at most 200000 characters"),
        ("text", "a\x00b", "NUL character"),
        ("system", "", "at least 1 character"),
        ("labels", [], "at least 1 item"),
        ("labels", [""], "at least 1 character"),
        ("labels", ["x"] * 1_001, "at most 1000 items"),
        ("models", [], "at least 1 item"),
        ("models", "mini", "valid array"),
        ("messages", [{"role": "system", "content": "x"}], "messages.0.role"),
        ("messages", [{"role": "user", "content": "x", "name": "n"}], "messages.0.name"),
        ("cost_weight", -0.1, "greater than or equal to 0"),
        ("cost_weight", 1_000_001, "less than or equal to 1000000"),
        ("latency_weight", -1, "greater than or equal to 0"),
        ("max_cost_usd", 0, "greater than 0"),
        ("min_quality", 1.01, "less than or equal to 1"),
        ("deadline_s", 0, "greater than 0"),
        ("deadline_s", 86_401, "less than or equal to 86400"),
        ("asked_at", "2026-03-01T08:00:00", "timezone"),
        ("metadata", {"k": 1}, "metadata.k"),
        ("metadata", {"k": "x" * 1_025}, "metadata.k"),
        ("metadata", {"": "v"}, "at least 1 character"),
        ("metadata", {str(n): "v" for n in range(65)}, "at most 64 items"),
        ("generation", {"temperature": 2.1}, "generation.temperature"),
        ("generation", {"top_k": 5}, "generation.top_k"),
        ("generation", {"stop": ["a", "b", "c", "d", "e"]}, "at most 4 items"),
        ("schema_version", 2, "schema_version"),
        ("prompt", "x", "prompt: no such field"),
    ],
)
def test_a_query_out_of_bounds_is_refused_by_name(field: str, value: object, said: str) -> None:
    """The reason names the field, so that whoever sent it finds it."""
    message = reason(Query, orjson.dumps(QUERY | {field: value}))
    assert field in message
    assert said in message


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_numbers_that_are_none_are_refused(number: bytes) -> None:
    """No weight of a query is ever NaN or infinite."""
    raw = b'{"query_id": "q", "text": "t", "cost_weight": ' + number + b"}"
    assert "cost_weight" in reason(Query, raw)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (None, "tombstone"),
        (b"", "Invalid JSON"),
        (b"{", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b'{"query_id": "q", "text": "\xc3"}', "Invalid JSON"),
        (b'{"query_id": "q", "text": "\\ud800"}', "Invalid JSON"),
        (b'\xef\xbb\xbf{"query_id": "q", "text": "t"}', "Invalid JSON"),
        (b"[]", "an object"),
        (b"7", "an object"),
        (b"[" * 10_000, "Invalid JSON"),
    ],
)
def test_what_is_no_json_object_is_refused(raw: bytes | None, said: str) -> None:
    """A record is one JSON object in UTF-8, without a byte order mark."""
    assert said.lower() in reason(Query, raw).lower()


def test_a_reason_names_three_fields_and_counts_the_rest() -> None:
    """However much is wrong, the reason stays short enough for a header."""
    wrong = QUERY | {f"field_{number}": 0 for number in range(500)}
    message = reason(Query, orjson.dumps(wrong))
    assert message.endswith("; and 497 more")
    assert len(message) < 500


def test_a_reason_shows_the_value_only_as_far_as_it_is_short() -> None:
    """A text of 200 kB is not repeated in the dead letter's reason."""
    message = reason(Query, orjson.dumps(QUERY | {"text": "x" * 300_000}))
    assert len(message) < 200


def test_a_reason_is_one_line_of_bounded_length() -> None:
    """No name of a field and no value begins a line of the log, or moves a cursor."""
    for wrong in ({"a\n\x1b[2J\u2028b\tü": 1}, {"answer": {"kind": "a\n\x1b[2J\u2028b\tü"}}):
        message = reason(Query, orjson.dumps(QUERY | wrong))
        assert r"a\n\x1b[2J\u2028b\tü" in message
        assert message.isprintable()
    assert len(reason(Query, orjson.dumps(QUERY | {"answer": {"kind": "k" * 100_000}}))) < 1_100


@pytest.mark.parametrize("field", ["labels", "models", "needs", "regions", "messages"])
def test_a_list_is_read_up_to_its_first_wrong_item(field: str) -> None:
    """Half a million errors would take seconds to tell; its length is not blamed."""
    message = reason(Query, orjson.dumps(QUERY | {field: [1] * 1_000}))
    assert message.startswith(f"{field}.0: Input should be")
    assert ";" not in message


@pytest.mark.parametrize(
    ("record", "fields"), [(Query, QUERY), (Feedback, FEEDBACK), (Model, MODEL)]
)
def test_users_records_refuse_fields_that_nobody_knows(
    record: type[Event], fields: dict[str, Any]
) -> None:
    """A wish that is misspelt is told, not ignored."""
    assert parse(record, fields)
    assert "lable: no such field" in reason(record, orjson.dumps(fields | {"lable": 1}))


@pytest.mark.parametrize(
    "fields",
    [
        {"label": "yes"},
        {"score": 0},
        {"score": 0.5},
        {"score": 1},
        {"withdrawn": True},
        {"withdrawn": True, "feedback_id": "anna"},
    ],
)
def test_feedback_is_a_label_a_score_or_a_withdrawal(fields: dict[str, Any]) -> None:
    """One judgement a record."""
    assert parse(Feedback, {"query_id": "q"} | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"label": "yes", "score": 1},
        {"label": "yes", "withdrawn": True},
        {"score": 1, "withdrawn": True},
        {"withdrawn": False},
    ],
)
def test_feedback_with_none_or_two_judgements_is_refused(fields: dict[str, Any]) -> None:
    """Nothing decides between a label and a score in one record."""
    assert "exactly one of label and score" in reason(
        Feedback, orjson.dumps({"query_id": "q"} | fields)
    )


@pytest.mark.parametrize("score", [-0.01, 1.01, 100])
def test_a_score_is_between_0_and_1(score: float) -> None:
    """Stars and percentages are the sender's to scale."""
    assert "score" in reason(Feedback, orjson.dumps({"query_id": "q", "score": score}))


@pytest.mark.parametrize("provider", ["OpenAI", "", "-x", "a.b", "a b", "x" * 64])
def test_a_provider_is_a_name_that_a_topic_can_have(provider: str) -> None:
    """`calls.<provider>` must be a legal topic."""
    assert "provider" in reason(Model, orjson.dumps(MODEL | {"provider": provider}))


def test_prices_are_not_negative() -> None:
    """Nobody pays us for calls."""
    price = {"input_usd_per_mtok": 0.1, "output_usd_per_mtok": -0.1}
    assert "price.output_usd_per_mtok" in reason(Model, orjson.dumps(MODEL | {"price": price}))


def test_records_cannot_be_changed() -> None:
    """A record that was read is the record that was written."""
    query = Query.parse(orjson.dumps(QUERY))
    with pytest.raises(ValidationError, match="frozen"):
        query.text = "another"  # type: ignore[misc]


def test_unset_fields_are_not_written() -> None:
    """A record has what was said, and `null` means unset when read."""
    assert b"null" not in Query.parse(orjson.dumps(QUERY)).encode()
    assert parse(Query, QUERY | {"task": None, "labels": None}) == parse(Query, QUERY)


def test_times_keep_their_moment() -> None:
    """An offset other than UTC's is understood, and two spellings are one moment."""
    early = parse(Query, QUERY | {"asked_at": "2026-03-01T09:00:00+01:00"})
    late = parse(Query, QUERY | {"asked_at": "2026-03-01T08:00:00Z"})
    assert isinstance(early, Query)
    assert isinstance(late, Query)
    assert early.asked_at == late.asked_at


@pytest.mark.parametrize(
    ("asked_at", "deadline_at"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
        (LATEST, LATEST),
    ],
)
def test_a_deadline_is_a_moment_that_a_call_can_carry(
    asked_at: datetime, deadline_at: datetime
) -> None:
    """Also where the last moment that records can name has come."""
    query = Query(query_id="q", text="Is it?", deadline_s=86_400, asked_at=asked_at)
    assert query.deadline_at(asked_at) == deadline_at
    call = Call(
        call_id="c",
        query=query,
        ranking=(Model(arm="a", provider="p", model="m"),),
        decided_at=asked_at,
        deadline_at=query.deadline_at(asked_at),
    )
    assert Call.parse(call.encode()) == call


@pytest.mark.parametrize("milliseconds", [-1, LATEST.timestamp() * 1_000 + 1, 2**62])
def test_a_record_of_an_absurd_time_is_one_of_the_epoch(milliseconds: float) -> None:
    """A client may write any; none may be more than our own records can name."""
    absurd = Message(topic="t", partition=0, offset=0, timestamp=(1, int(milliseconds)))
    assert recorded_at(absurd) == datetime.fromtimestamp(0, UTC)


def test_a_record_keeps_its_own_time() -> None:
    """To the millisecond."""
    message = Message(topic="t", partition=0, offset=0, timestamp=(1, 1_500))
    assert recorded_at(message) == datetime.fromtimestamp(1.5, UTC)


@pytest.mark.parametrize(
    "said",
    [
        "1970-01-01T00:30:00+01:00",
        "2200-12-31T23:30:00-02:00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_moments_lie_within_reason_in_utc(said: str) -> None:
    """So that what was accepted once can be read back, whatever zone it was written in."""
    with pytest.raises(ValidationError, match=r"than or equal to (1970-01-01|2200-12-31)"):
        Feedback(query_id="q", feedback_id="f", label="a", given_at=said)


def test_moments_of_the_first_and_last_day_are_taken() -> None:
    """And read back as they were."""
    for said in ("1969-12-31T23:30:00-01:00", "2201-01-01T00:30:00+01:00"):
        given = Feedback(query_id="q", feedback_id="f", label="a", given_at=said)
        assert Feedback.parse(given.encode()) == given
