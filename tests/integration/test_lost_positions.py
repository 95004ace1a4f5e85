"""Groups that were down for so long that the broker has forgotten their positions."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import numpy as np
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic

from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Call, Case, Model, Query, Result
from metallm_stream.kafka import ExactlyOnce, Partition, Record, Window, Work, write
from metallm_stream.kafka.out_of_order import MAX_SPAN
from metallm_stream.serve.lost_positions import after_decisions, after_outcomes
from metallm_stream.serve.metrics import LoopMetrics
from tests.integration.test_topics import alter
from tests.pipeline import LABELS, Pipeline, outcomes, questions
from tests.processes import eventually
from tests.records import REFUSED, decision, result, verdict

TEXTS = {"arm": "mini", "model": "m", "question": "?", "answer": "!"}


def forget(pipeline: Pipeline, *groups: str) -> None:
    """Have the broker forget the groups' positions, as it does days after the last member left."""
    admin = pipeline.kafka.admin()

    def is_gone(group: str) -> bool:
        name = f"{pipeline.names.prefix}metallm-{group}"
        return admin.delete_consumer_groups([name])[name].exception(15) is None

    for group in groups:
        eventually(lambda group=group: is_gone(group))


def counted(pipeline: Pipeline, topic: str) -> Counter[str]:
    """How many records each key has."""
    return Counter((message.key() or b"").decode() for message in pipeline.read(topic))


def test_what_was_done_is_not_done_again(pipeline: Pipeline) -> None:
    """Router and worker go on where decisions and results end; what has come since is done."""
    queries = questions(40)
    pipeline.record(outcomes(queries), labels=LABELS)
    router = pipeline.start("router", ROUTER__RECENT_IDS="1")
    worker = pipeline.start("worker", "--provider", "recorded")
    pipeline.ask(*queries[:20])
    pipeline.wait_for_results(20)
    worker.stop()
    pipeline.ask(*queries[20:30])
    pipeline.wait_for_records(pipeline.names.decisions, 30)
    router.stop()
    pipeline.ask(*queries[30:])
    forget(pipeline, "router", "worker-recorded")
    pipeline.start("router", slot="1", ROUTER__RECENT_IDS="1")
    pipeline.start("worker", "--provider", "recorded", slot="1")
    eventually(lambda: len(counted(pipeline, pipeline.names.results)) == 40)
    pipeline.probe()
    wanted = Counter(dict.fromkeys([*(query.query_id for query in queries), "q1000000"], 1))
    assert counted(pipeline, pipeline.names.decisions) == wanted
    assert counted(pipeline, pipeline.names.results) == wanted


def fill_cases(pipeline: Pipeline, judged: tuple[int, ...]) -> dict[Partition, Window]:
    """Ten cases in one partition, and verdicts on some; where the judge would go on."""
    topic, names = pipeline.names.cases, [f"q{i}" for i in range(10)]
    cases = [Case(query_id=name, call_id=f"c-{name}", **TEXTS) for name in names]
    write(pipeline.producer, [Record(topic, b"", case.encode(), 0) for case in cases])
    given = [verdict(names[i], call_id=f"c-{names[i]}") for i in judged]
    write(
        pipeline.producer,
        [Record.of(pipeline.names.verdicts, item.query_id, item) for item in given],
    )
    return go_on_judging(pipeline)


def go_on_judging(pipeline: Pipeline) -> dict[Partition, Window]:
    """Windows of the partition of `cases` that has records."""
    starts = {(pipeline.names.cases, 0): 0}
    return after_outcomes(pipeline.kafka, pipeline.names.verdicts, "judges", starts)


def test_who_looks_back_lives_but_is_not_ready(pipeline: Pipeline) -> None:
    """However long it takes, no probe ends it as long as records come."""
    fill_cases(pipeline, (0, 1, 3, 7))
    metrics, starts = (
        LoopMetrics("judge", "0", clock=iter(range(1_000)).__next__),
        {(pipeline.names.cases, 0): 0},
    )
    names = pipeline.names.verdicts, "judges"
    assert after_outcomes(pipeline.kafka, *names, starts, metrics.alive)
    assert metrics.stuck_s() == 1
    assert metrics.unready() is not None


def delete(pipeline: Pipeline, topic: str) -> None:
    """Delete all records of a topic, as retention does."""
    places = [TopicPartition(topic, number, -1) for number in range(pipeline.partitions)]
    admin = pipeline.kafka.admin()

    def are_gone() -> bool:  # of a new topic, some partitions may have no leader yet
        cuts = admin.delete_records(places).values()
        return all(cut.exception(15) is None for cut in cuts)

    eventually(are_gone)


def test_what_was_judged_out_of_order_is_not_judged_again(pipeline: Pipeline) -> None:
    """The first case without a verdict is the position; above it only those without are left."""
    window = fill_cases(pipeline, (0, 1, 3, 7))[pipeline.names.cases, 0]
    assert window.next_offset == 2
    assert [i for i in range(2, 10) if window.begin(i)] == [2, 4, 5, 6, 8, 9]


def test_a_group_that_begins_begins_at_the_first_record(pipeline: Pipeline) -> None:
    """Nothing tells that anything was done, and what an aborted transaction wrote tells nothing."""
    assert fill_cases(pipeline, ()) == {}
    producer = pipeline.kafka.transactional_producer(f"{pipeline.names.prefix}dead")
    producer.init_transactions(15)
    producer.begin_transaction()
    producer.produce(pipeline.names.decisions, decision("q0").encode(), partition=0)
    producer.flush(15)
    producer.abort_transaction(15)
    assert go_on_deciding(pipeline, "q0", "q1") == {}


def test_verdicts_that_were_deleted_are_asked_for(pipeline: Pipeline) -> None:
    """Cases as old as those may have been judged: somebody must say; younger ones were not."""
    fill_cases(pipeline, (0, 1))
    delete(pipeline, pipeline.names.verdicts)
    assert go_on_judging(pipeline) == {}
    alter(pipeline, pipeline.names.verdicts, "retention.ms", "1")
    with pytest.raises(ConfigurationError, match=r"'judges'.* --topic .*cases:0 --to-datetime 20"):
        go_on_judging(pipeline)


def wait(pipeline: Pipeline, *names: str, ago_s: int, garbage: bool = False) -> None:
    """Cases of some time ago, in the partition of `fill_cases`, or what is none."""
    at_ms = int((time.time() - ago_s) * 1_000)
    for name in names:
        case = Case(query_id=name, call_id=f"c-{name}", **TEXTS)
        value = b"garbage" if garbage else case.encode()
        pipeline.producer.produce(pipeline.names.cases, value, partition=0, timestamp=at_ms)
    pipeline.producer.flush(15)


def judge(pipeline: Pipeline, *names: str) -> None:
    """Verdicts on these cases, in one partition."""
    given = [verdict(name, call_id=f"c-{name}").encode() for name in names]
    write(pipeline.producer, [Record(pipeline.names.verdicts, b"", each, 0) for each in given])


@contextmanager
def unsettled(pipeline: Pipeline, topic: str, after_s: float) -> Iterator[None]:
    """Somebody's transaction is open in the first partition, and aborted after a time."""
    producer = pipeline.kafka.transactional_producer(f"{pipeline.names.prefix}open")
    producer.init_transactions(15)
    producer.begin_transaction()
    producer.produce(topic, b"open", partition=0)
    producer.flush(15)
    end = threading.Timer(after_s, producer.abort_transaction, (15,))
    end.start()
    try:
        yield
    finally:
        end.join()


def test_verdicts_behind_an_open_transaction_are_waited_for(pipeline: Pipeline) -> None:
    """What somebody else has begun to write hides them, and who goes on without pays twice."""
    with unsettled(pipeline, pipeline.names.verdicts, 2.0):
        judge(pipeline, "q0", "q1")
        wait(pipeline, "q0", "q1", "q2", ago_s=0)
        window = go_on_judging(pipeline)[pipeline.names.cases, 0]
    assert window.next_offset == 2


def test_decisions_behind_an_open_transaction_are_waited_for(pipeline: Pipeline) -> None:
    """And so are decisions."""
    with unsettled(pipeline, pipeline.names.decisions, 2.0):
        decide(pipeline, "q1", 1)
        window = go_on_deciding(pipeline, "q0", "q1", "q2")[pipeline.names.queries, 0]
    assert window.next_offset == 2


def test_what_nobody_can_read_asks_for_nothing(pipeline: Pipeline) -> None:
    """It costs nothing to refuse it once more."""
    judge(pipeline, "q0")
    delete(pipeline, pipeline.names.verdicts)
    wait(pipeline, "x", ago_s=900, garbage=True)
    wait(pipeline, "q1", ago_s=800)
    judge(pipeline, "q1")
    alter(pipeline, pipeline.names.verdicts, "retention.ms", "600000")
    window = go_on_judging(pipeline)[pipeline.names.cases, 0]
    assert [window.begin(i) for i in range(2)] == [True, False]


def test_the_command_leaves_out_what_was_done_since(pipeline: Pipeline) -> None:
    """It names when the first was written that was not done for certain, or now."""
    judge(pipeline, "q0")
    delete(pipeline, pipeline.names.verdicts)
    alter(pipeline, pipeline.names.verdicts, "retention.ms", "600000")
    wait(pipeline, "q0", ago_s=900)
    wait(pipeline, "q1", "q2", ago_s=500)
    judge(pipeline, "q1", "q2")
    eventually(lambda: ago_s(pipeline) < 30)
    wait(pipeline, "q3", ago_s=300)
    assert 300 <= ago_s(pipeline) < 330


def ago_s(pipeline: Pipeline) -> float:
    """How long ago the time is that the command sets the position to; infinite if none is told."""
    try:
        go_on_judging(pipeline)
    except ConfigurationError as exc:
        (at,) = re.findall(r"--to-datetime (\S+)", str(exc))
        return time.time() - datetime.fromisoformat(f"{at}+00:00").timestamp()
    return math.inf


def test_verdicts_that_were_too_many_bytes_are_asked_for(pipeline: Pipeline) -> None:
    """They are deleted before their time."""
    wait(pipeline, "q0", ago_s=60)
    judge(pipeline, "q0")
    delete(pipeline, pipeline.names.verdicts)
    judge(pipeline, "q1")
    assert go_on_judging(pipeline) == {}
    alter(pipeline, pipeline.names.verdicts, "retention.bytes", "1000000")
    eventually(lambda: ago_s(pipeline) < math.inf)


def test_a_position_that_was_found_is_committed(pipeline: Pipeline) -> None:
    """Though nothing is left to do: what tells of it may be deleted before something comes."""
    wait(pipeline, "q0", "q1", ago_s=0)
    topic, group = pipeline.names.cases, f"{pipeline.names.prefix}judges"
    loop = ExactlyOnce(
        pipeline.kafka, [topic], group=group, slot="0", unplaced=lambda _: {(topic, 0): Window(2)}
    )
    loop.start()

    def is_found() -> bool:
        loop.take(1, 0.1)
        return loop.has_pending

    eventually(is_found)
    loop.close()
    reader = pipeline.kafka.reader(group)
    (committed,) = reader.committed([TopicPartition(topic, 0)], 15)
    reader.close()
    assert committed.offset == 2


def test_who_looks_back_is_no_member_yet(pipeline: Pipeline) -> None:
    """The group goes on without a member that is silent for long while it balances.

    Partitions in which nothing was done have a position soon as well, and are looked at once.
    """
    wait(pipeline, "q0", ago_s=0)
    topic, group = pipeline.names.cases, f"{pipeline.names.prefix}judges"
    admin = pipeline.kafka.admin()
    looked: list[list[object]] = []

    def look_back(_: Mapping[Partition, int]) -> dict[Partition, Window]:
        looked.append(admin.describe_consumer_groups([group])[group].result(15).members)
        return {}

    for _ in range(2):
        loop = ExactlyOnce(pipeline.kafka, [topic], group=group, slot="0", unplaced=look_back)
        loop.start()
        eventually(lambda loop=loop: loop.take(1, 0.1) or loop.has_pending)
        loop.close()
    assert looked == [[]]


def test_what_was_found_in_a_topic_that_is_made_anew_meanwhile_tells_nothing(
    pipeline: Pipeline,
) -> None:
    """All of the new one is there to be done."""
    wait(pipeline, "q0", "q1", ago_s=0)
    topic, group = pipeline.names.cases, f"{pipeline.names.prefix}judges"
    admin = pipeline.kafka.admin()
    looked: list[Mapping[Partition, int]] = []

    def look_back(firsts: Mapping[Partition, int]) -> dict[Partition, Window]:
        looked.append(firsts)
        if len(looked) > 1:
            return {}
        admin.delete_topics([topic])[topic].result(15)
        again = [NewTopic(topic, 1, 1)]
        eventually(lambda: admin.create_topics(again)[topic].exception(15) is None)
        wait(pipeline, "q2", ago_s=0)
        return {(topic, 0): Window(2)}

    loop = ExactlyOnce(pipeline.kafka, [topic], group=group, slot="0", unplaced=look_back)
    loop.start()
    works: list[Work] = []
    eventually(lambda: works.extend(loop.take(1, 0.1)) or works)
    loop.close()
    assert [work.offset for work in works] == [0]


def test_what_was_done_here_and_there_is_not_done_again(pipeline: Pipeline) -> None:
    """Nor after a restart, though more of it than a commit's metadata can hold."""
    topic, group = pipeline.names.cases, f"{pipeline.names.prefix}judges"
    judged = np.random.default_rng(0).random(2 * MAX_SPAN) < 0.5
    values = [Case(query_id=f"q{i}", call_id=f"c{i}", **TEXTS).encode() for i in range(judged.size)]
    write(pipeline.producer, [Record(topic, b"", value, 0) for value in values])
    write(pipeline.producer, [verdict_on(pipeline, i) for i in np.flatnonzero(judged).tolist()])
    look_back = partial(after_outcomes, pipeline.kafka, pipeline.names.verdicts, group)
    left = np.flatnonzero(~judged).tolist()
    for count in (50, 500, 1_000):
        loop = ExactlyOnce(pipeline.kafka, [topic], group=group, slot="0", unplaced=look_back)
        loop.start()
        works: list[Work] = []
        eventually(
            lambda loop=loop, works=works, count=count: (
                works.extend(loop.take(count - len(works), 0.1)) or len(works) == count
            )
        )
        assert [work.offset for work in works] == left[:count]
        for work in works[1::2]:
            assert loop.complete(work, [verdict_on(pipeline, work.offset)])
        left = sorted(set(left) - {work.offset for work in works[1::2]})
        loop.close()


def verdict_on(pipeline: Pipeline, number: int) -> Record:
    """Of the judge, on a numbered case."""
    given = verdict(f"q{number}", call_id=f"c{number}")
    return Record(pipeline.names.verdicts, b"", given.encode(), 0)


def test_a_result_that_does_not_name_its_call_is_of_its_querys(pipeline: Pipeline) -> None:
    """Older workers wrote such; a router's refusal is of no call."""
    topic, answered = pipeline.names.calls("recorded"), result("q0")
    refused = Result(query_id="q1", failure=REFUSED, finished_at=answered.finished_at)
    calls = [
        Call(
            call_id=f"c-{name}",
            query=Query(query_id=name, text="Why?"),
            ranking=(Model(arm="mini", provider="recorded", model="m"),),
            decided_at=answered.finished_at,
        )
        for name in ("q0", "q1", "q2")
    ]
    write(pipeline.producer, [Record(topic, b"", call.encode(), 0) for call in calls])
    outcomes = pipeline.names.results
    given = [answered, refused, result("q2", call_id="c-q2")]
    write(pipeline.producer, [Record.of(outcomes, item.query_id, item) for item in given])
    window = after_outcomes(pipeline.kafka, outcomes, "workers", {(topic, 0): 0})[topic, 0]
    assert [i for i in range(3) if window.begin(i)] == [1]


def go_on_deciding(pipeline: Pipeline, *asked: str) -> dict[Partition, Window]:
    """Ask in one partition; windows of it."""
    queries = [Query(query_id=name, text="Why?") for name in asked]
    topic = pipeline.names.queries
    write(pipeline.producer, [Record(topic, b"", item.encode(), 0) for item in queries])
    return after_decisions(pipeline.kafka, pipeline.names, "routers", {(topic, 0): 0})


def decide(pipeline: Pipeline, query_id: str, offset: int) -> None:
    """As a router did."""
    made = decision(query_id, query_offset=offset)
    write(pipeline.producer, [Record(pipeline.names.decisions, b"", made.encode(), 0)])


def test_the_last_decision_is_the_position(pipeline: Pipeline) -> None:
    """Unless its query stands no longer where it stood: the topic was made anew."""
    decide(pipeline, "q1", 1)
    pipeline.produce(pipeline.names.decisions, b"garbage")
    (window,) = go_on_deciding(pipeline, "q0", "q1", "q2").values()
    assert window.next_offset == 2
    decide(pipeline, "q1", 2)
    assert go_on_deciding(pipeline) == {}
    decide(pipeline, "q9", 9)
    assert go_on_deciding(pipeline) == {}


def test_decisions_that_were_deleted_are_asked_for(pipeline: Pipeline) -> None:
    """Queries as old as those may have been decided: somebody must say; younger ones were not."""
    decide(pipeline, "q0", 0)
    delete(pipeline, pipeline.names.decisions)
    assert go_on_deciding(pipeline, "q0", "q1") == {}
    alter(pipeline, pipeline.names.decisions, "retention.ms", "1")
    with pytest.raises(ConfigurationError, match=r"queries:0 --to-datetime .* --to-earliest"):
        go_on_deciding(pipeline)
    router = pipeline.start("router", restart=False)
    assert router.wait_over(60) == 78
    assert "brokers have forgotten the positions" in pipeline.logs()
