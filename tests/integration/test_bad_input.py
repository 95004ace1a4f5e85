"""Whatever arrives on the topics ends as documented, and the stream goes on."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
from confluent_kafka import Message as Received
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from metallm_stream.events import Feedback, Message, Model, Query, Result
from metallm_stream.kafka import OFFSET, REASON, SERVICE, TOPIC, Record, header, write
from tests.fuzz.run import Fuzz
from tests.pipeline import GARBAGE, LABELS, Pipeline, questions
from tests.processes import eventually

DEAD_QUERIES = {
    "not JSON": (b"{query", "Invalid JSON"),
    "not UTF-8": (b'{"query_id": "x", "text": "\xff\xfe"}', "Invalid JSON"),
    "not an object": (b'["q"]', "object"),
    "empty": (b"", "Invalid JSON"),
    "tombstone": (None, "tombstone"),
    "wrong types": (b'{"query_id": 7, "text": "t"}', "query_id"),
    "unknown field": (b'{"query_id": "x", "text": "t", "max_cots_usd": 1}', "max_cots_usd"),
    "empty text": (b'{"query_id": "x", "text": ""}', "text"),
    "long text": (orjson.dumps({"query_id": "x", "text": "t" * 200_001}), "text"),
    "NaN": (b'{"query_id": "x", "text": "t", "cost_weight": NaN}', "cost_weight"),
    "infinity": (b'{"query_id": "x", "text": "t", "cost_weight": Infinity}', "cost_weight"),
    "huge number": (b'{"query_id": "x", "text": "t", "cost_weight": 1e999}', "cost_weight"),
    "missing id": (b'{"text": "t"}', "query_id"),
    "long id": (orjson.dumps({"query_id": "x" * 10_000, "text": "t"}), "query_id"),
    "NUL in text": (b'{"query_id": "x", "text": "a\\u0000b"}', "text"),
    "NUL in id": (b'{"query_id": "\\u0000", "text": "a"}', "query_id"),
    "lone surrogate": (b'{"query_id": "x", "text": "\\ud800"}', "Invalid JSON"),
    "empty allow list": (b'{"query_id": "x", "text": "t", "models": []}', "models"),
    "negative weight": (b'{"query_id": "x", "text": "t", "cost_weight": -1}', "cost_weight"),
    "later schema": (b'{"query_id": "x", "text": "t", "schema_version": 2}', "schema_version"),
    "naive time": (b'{"query_id": "x", "text": "t", "asked_at": "2026-01-01T00:00"}', "asked_at"),
    "another millennium": (
        b'{"query_id": "x", "text": "t", "asked_at": "9999-12-31T23:59:59Z", "deadline_s": 60}',
        "asked_at",
    ),
    "a number as text": (b'{"query_id": "x", "text": "t", "cost_weight": "0.5"}', "cost_weight"),
    "deep nesting": (b'{"query_id": "x", "text": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "text"),
}
DEAD_FEEDBACK = {
    "neither label nor score": (b'{"query_id": "q0"}', "label"),
    "label and score": (b'{"query_id": "q0", "label": "yes", "score": 1}', "label"),
    "score above 1": (b'{"query_id": "q0", "score": 1.5}', "score"),
    "score true": (b'{"query_id": "q0", "score": true}', "score"),
    "score NaN": (b'{"query_id": "q0", "score": NaN}', "score"),
    "withdrawn with a label": (b'{"query_id": "q0", "label": "a", "withdrawn": true}', "withdrawn"),
    "unknown field": (b'{"query_id": "q0", "label": "a", "lable": "b"}', "lable"),
    "tombstone": (None, "tombstone"),
}


def goes_on(pipeline: Pipeline, query_id: str) -> Result:
    """Whether a good query still gets its answer."""
    query = questions(1)[0].model_copy(update={"query_id": query_id})
    pipeline.ask(query)
    eventually(lambda: query_id in pipeline.results(), 30)
    return pipeline.results()[query_id]


def reason_of(message: Received) -> str:
    """The reason in a dead letter's headers."""
    return (header(message, REASON) or b"").decode()


def test_unreadable_queries_become_dead_letters_with_reason_and_position(
    running: Pipeline,
) -> None:
    """Each bad record keeps its bytes, key and headers; the good one behind them is answered."""
    topic = running.names.queries
    for name, (value, _) in DEAD_QUERIES.items():
        write(
            running.producer,
            [Record(topic, name.encode(), value, headers=(("trace", b"abc"),))],
        )
    assert goes_on(running, "after-bad-queries").failure is None
    letters = {(item.key() or b"").decode(): item for item in running.dead_letters(topic)}
    assert letters.keys() == DEAD_QUERIES.keys()
    sent = {(item.key() or b"").decode(): item for item in running.read(topic)}
    for name, (value, said) in DEAD_QUERIES.items():
        letter = letters[name]
        assert said in reason_of(letter), name
        assert letter.value() == value
        assert header(letter, "trace") == b"abc"
        assert header(letter, TOPIC) == topic.encode()
        assert header(letter, OFFSET) == str(sent[name].offset()).encode()
        assert header(letter, SERVICE) == b"router"
    running.wait_until_learned()
    seen = running.sql(
        "SELECT count(*) AS n FROM metallm.dead_letters WHERE topic = :topic", topic=topic
    )
    assert seen[0]["n"] == len(DEAD_QUERIES)


def test_a_query_longer_than_a_record_of_ours_becomes_a_dead_letter(running: Pipeline) -> None:
    """Compressed, it passes the topic's limit; its call and decision would not."""
    turns = tuple(Message(role="user", content="a" * 199_000) for _ in range(30))
    query = questions(1)[0].model_copy(update={"query_id": "long", "messages": turns})
    producer = running.kafka.producer(max_record_bytes=12 * 1024 * 1024)
    write(producer, [Record(running.names.queries, b"long", query.encode())])
    assert goes_on(running, "after-long").failure is None
    letter = next(m for m in running.dead_letters(running.names.queries) if m.key() == b"long")
    assert "shorten it" in reason_of(letter)


def test_times_far_from_utc_reach_the_database_in_utc(running: Pipeline) -> None:
    """PostgreSQL knows no offset of 23 hours, our records do."""
    query = questions(1)[0].encode()[:-1] + b',"asked_at":"2026-01-01T00:00:00+23:00"}'
    running.produce(running.names.queries, query.replace(b'"q0"', b'"far"'))
    late = b'{"query_id":"far","label":"yes","given_at":"2026-01-02T00:00:00+23:00"}'
    running.produce(running.names.feedback, late)
    eventually(lambda: "far" in running.results(), 30)
    running.wait_until_learned()
    row = running.sql("SELECT asked_at, given_at FROM metallm.interactions WHERE query_id = 'far'")[
        0
    ]
    assert row["asked_at"] == datetime(2025, 12, 31, 1, tzinfo=UTC)
    assert row["given_at"] == datetime(2026, 1, 1, 1, tzinfo=UTC)


def test_a_record_of_ten_megabytes_becomes_a_cut_dead_letter(running: Pipeline) -> None:
    """Where a topic takes such records at all; ours refuse them at the producer."""
    topic = running.names.queries
    resource = ConfigResource(ResourceType.TOPIC, topic)
    resource.add_incremental_config(
        ConfigEntry(
            "max.message.bytes",
            str(12 * 1024 * 1024),
            incremental_operation=AlterConfigOpType.SET,
        )
    )
    admin = running.kafka.admin()
    for changed in admin.incremental_alter_configs([resource]).values():
        changed.result(15)
    value = orjson.dumps({"query_id": "big", "text": "é" * 5_000_000})
    producer = running.kafka.producer(max_record_bytes=12 * 1024 * 1024)
    write(producer, [Record(topic, b"ten megabytes", value)])
    assert goes_on(running, "after-ten-megabytes").failure is None
    letter = next(m for m in running.dead_letters(topic) if m.key() == b"ten megabytes")
    assert header(letter, "metallm.value_bytes") == str(len(value)).encode()
    assert value.startswith(letter.value() or b"-")


def test_a_query_that_no_arm_is_left_for_gets_a_failure_result(running: Pipeline) -> None:
    """The failure names the reason, and the learner keeps the decision."""
    running.ask(Query(query_id="r0", text="t", models=("gpt-9",)))
    eventually(lambda: "r0" in running.results(), 30)
    result = running.results()["r0"]
    assert result.failure is not None
    assert result.failure.kind == "no_arm"
    assert "gpt-9" in result.failure.message
    running.wait_until_learned()
    row = running.sql("SELECT arm, failure FROM metallm.interactions WHERE query_id = 'r0'")
    assert row == [{"arm": None, "failure": "no_arm"}]


def test_a_query_that_every_arm_is_too_dear_for_is_refused(running: Pipeline) -> None:
    """Once the arms' costs are known; an unknown cost excludes no arm."""
    for number in range(100):
        query = questions(1)[0].model_copy(update={"query_id": f"dear-{number}"})
        running.ask(query.model_copy(update={"max_cost_usd": 1e-12}))
        eventually(lambda wanted=query.query_id: wanted in running.results(), 30)
        failure = running.results()[query.query_id].failure
        if failure is not None:
            assert failure.kind == "no_arm"
            assert "max_cost_usd" in failure.message
            return
    raise AssertionError("costs were never known")


def test_a_task_that_nobody_knows_is_a_name_like_any_other(running: Pipeline) -> None:
    """Tasks are free names: the query is answered and counted under its task."""
    query = questions(1)[0].model_copy(update={"query_id": "task", "task": "haruspicy"})
    running.ask(query)
    eventually(lambda: "task" in running.results(), 30)
    running.wait_until_learned()
    assert running.sql("SELECT 1 FROM metallm.interactions WHERE task = 'haruspicy'")


def test_the_same_query_again_is_not_decided_again(running: Pipeline) -> None:
    """Same id and text: one decision, one result. Same id, other text: a dead letter."""
    query = questions(1)[0].model_copy(update={"query_id": "again"})
    other = query.model_copy(update={"text": "Something else?"})
    running.ask(query, query)
    goes_on(running, "after-again-1")
    running.ask(query, other)
    goes_on(running, "after-again-2")
    keys = [item.key() for item in running.read(running.names.decisions)]
    assert keys.count(b"again") == 1
    letters = [m for m in running.dead_letters(running.names.queries) if m.key() == b"again"]
    assert len(letters) == 1
    assert "another text" in reason_of(letters[0])
    assert Query.parse(letters[0].value()) == other


def test_bad_feedback_becomes_a_dead_letter(running: Pipeline) -> None:
    """The learner goes on, and the reason is in SQL."""
    topic = running.names.feedback
    for name, (value, _) in DEAD_FEEDBACK.items():
        running.produce(topic, value, name.encode())
    eventually(lambda: len(running.dead_letters(topic)) == len(DEAD_FEEDBACK), 30)
    letters = {(item.key() or b"").decode(): item for item in running.dead_letters(topic)}
    for name, (value, said) in DEAD_FEEDBACK.items():
        assert said in reason_of(letters[name]), name
        assert letters[name].value() == value
    running.wait_until_learned()
    rows = running.sql("SELECT 1 FROM metallm.dead_letters WHERE topic = :topic", topic=topic)
    assert len(rows) == len(DEAD_FEEDBACK)


def test_feedback_may_come_first_twice_and_for_nobody(running: Pipeline) -> None:
    """Feedback before its query is kept and joined; a repetition changes nothing."""
    early = Feedback(query_id="early", label="yes", given_at=datetime(2026, 1, 1, tzinfo=UTC))
    nobody = Feedback(query_id="nobody", label="yes")
    running.judge(early, early, nobody)
    goes_on(running, "early")
    running.judge(early)
    running.wait_until_learned()
    rows = running.sql(
        "SELECT query_id, quality IS NOT NULL AS judged, arm IS NOT NULL AS decided "
        "FROM metallm.interactions WHERE query_id IN ('early', 'nobody') ORDER BY 1"
    )
    assert rows == [
        {"query_id": "early", "judged": True, "decided": True},
        {"query_id": "nobody", "judged": False, "decided": False},
    ]


def test_a_label_that_is_none_of_the_labels_is_not_counted(running: Pipeline) -> None:
    """It is kept with the problem named, and a correct label later counts."""
    goes_on(running, "mislabelled")
    running.judge(Feedback(query_id="mislabelled", label="perhaps"))
    running.wait_until_learned()
    where = "FROM metallm.interactions WHERE query_id = 'mislabelled'"
    row = running.sql(f"SELECT quality, problem {where}")[0]
    assert row["quality"] is None
    assert "perhaps" in str(row["problem"])
    running.judge(Feedback(query_id="mislabelled", label=LABELS[0]))
    running.wait_until_learned()
    row = running.sql(f"SELECT quality, problem {where}")[0]
    assert row["quality"] is not None
    assert row["problem"] is None


def test_results_and_decisions_that_nobody_expected_do_no_harm(running: Pipeline) -> None:
    """A result without decision is kept; unreadable service records are dead letters."""
    stray = Result(query_id="stray", arm="large", text="yes", finished_at=datetime.now(UTC))
    absurd = stray.encode().replace(b'"cost_usd":0.0', b'"cost_usd":1e200')
    running.produce(running.names.results, stray.encode())
    running.produce(running.names.results, absurd, GARBAGE)
    for topic in (running.names.results, running.names.decisions, running.names.calls("recorded")):
        running.produce(topic, b"\x00\x01", GARBAGE)
    goes_on(running, "after-strays")
    running.wait_until_learned()
    assert running.sql("SELECT 1 FROM metallm.interactions WHERE query_id = 'stray'")
    rows = running.sql("SELECT service FROM metallm.dead_letters WHERE key_text = 'garbage'")
    assert sorted(str(row["service"]) for row in rows) == ["learner"] * 3 + ["worker"]


def test_compressed_header_laden_and_keyless_records_are_queries_like_any_other(
    running: Pipeline,
) -> None:
    """What users' producers do beside the value does not matter."""
    base = questions(1)[0]
    odd = [base.model_copy(update={"query_id": f"odd-{number}"}) for number in range(3)]
    headers = tuple((f"h{number}", b"x" * 100) for number in range(200))
    write(
        running.kafka.producer(compression="gzip"),
        [
            Record(running.names.queries, None, odd[0].encode()),
            Record(running.names.queries, b"another key", odd[1].encode(), headers=headers),
            Record(running.names.queries, b"\xff\x00", odd[2].encode(), headers=(("h", b""),)),
        ],
    )
    eventually(lambda: {query.query_id for query in odd} <= running.results().keys(), 30)


def test_fuzzed_records_on_every_topic_stop_nothing_and_are_accounted_for(
    running: Pipeline,
) -> None:
    """Each is a dead letter, told in the log, or valid after all (`python -m tests.fuzz`)."""
    fuzz = Fuzz(running, seed=7)
    fuzz.send(240)
    fuzz.wait(60)
    fates = fuzz.fates(60)
    assert [line for fate in fates.values() for line in fate.lost] == []
    assert sum(fate.sent for fate in fates.values()) == 240
    assert all(child.exit_codes == () for child in running.supervisor.children.values())


def test_after_all_that_the_model_is_still_the_fold_of_what_happened(running: Pipeline) -> None:
    """Live model = stored interactions = log, to 1e-9."""
    running.wait_until_learned()
    assert running.rebuilt().max_relative_difference <= 1e-9
    assert running.rebuilt(from_log=True).max_relative_difference <= 1e-9


def test_a_router_says_whose_query_it_refused_and_which_topic_it_lacks(pipeline: Pipeline) -> None:
    """So that what it logs can be found by an id, and the topic can be made."""
    names = pipeline.names
    arm = Model(arm="a", provider="elsewhere", model="a")
    write(pipeline.producer, [Record.of(names.models, arm.arm, arm)])
    dead = (b'{"query_id": "misspelt", "txet": "t"}', b'{"query_id": "cut"')
    write(pipeline.producer, [Record(names.queries, b"k", value) for value in dead])
    pipeline.start("router", LOG_FORMAT="json")
    pipeline.ask(*questions(1))
    pipeline.wait_for_results(1)
    log = pipeline.directory / "router-0.log"
    said = [orjson.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    refused = {line.get("query_id") for line in said if " refused: " in line["message"]}
    assert refused == {"misspelt", None}
    left_out = f"arm 'a' is left out: topic '{names.calls('elsewhere')}' is missing"
    assert any(left_out in line["message"] for line in said)
