"""The loop that consumes, works, produces and commits, one process's life at a time."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic

from metallm_stream.errors import ConfigurationError, Fenced
from metallm_stream.kafka import (
    ExactlyOnce,
    MadeAnewError,
    Partition,
    Record,
    Window,
    Work,
    topic_ids,
    write,
)
from metallm_stream.kafka.exactly_once import BATCH_BYTES
from tests.pipeline import REPOSITORY, Pipeline
from tests.processes import eventually

COUNT = 20


@contextmanager
def member(
    pipeline: Pipeline, slot: str = "0", last_records: Callable[[], Sequence[Record]] = tuple
) -> Iterator[ExactlyOnce]:
    """A started member of the group; at the end of the block it forgets all and is gone."""
    group = f"{pipeline.names.prefix}copier"
    topics = [pipeline.names.queries]
    loop = ExactlyOnce(pipeline.kafka, topics, group=group, slot=slot, last_records=last_records)
    loop.start()
    try:
        yield loop
    finally:
        loop._pending.clear()
        loop.close()


def fill(pipeline: Pipeline) -> None:
    """Write 20 records."""
    topic = pipeline.names.queries
    write(pipeline.producer, [Record(topic, b"%d" % i, b"%d" % i) for i in range(COUNT)])


def take(loop: ExactlyOnce, count: int = COUNT) -> list[Work]:
    """That many records, however many turns it takes."""
    works: list[Work] = []
    for _ in range(200):
        works += loop.take(count - len(works), 0.1)
        if len(works) == count:
            return works
    raise AssertionError(f"{len(works)} of {count} records came")


def _error(answer: Future[None]) -> BaseException | None:
    """What a request came to: None if it was granted."""
    return answer.exception(15)


def number(work: Work) -> int:
    """What is written in the record."""
    return int(work.message.value() or b"-1")


def copies(pipeline: Pipeline) -> list[int]:
    """The numbers that were copied, as a stranger sees them."""
    return sorted(int(item.value() or b"-1") for item in pipeline.read(pipeline.names.results))


def copy(pipeline: Pipeline, loop: ExactlyOnce, work: Work) -> bool:
    """Copy one record to the results."""
    record = Record(pipeline.names.results, work.message.key(), work.message.value())
    return loop.complete(work, [record])


def all_but_the_first_of_each(pipeline: Pipeline) -> tuple[list[Work], dict[Partition, Work]]:
    """Fill, copy all but the first record of each partition, and commit; all, and those left."""
    fill(pipeline)
    with member(pipeline) as loop:
        works = take(loop)
        slow = {work.partition: work for work in reversed(works)}
        for work in works:
            if slow[work.partition] is not work:
                copy(pipeline, loop, work)
        loop.flush()
    return works, slow


def test_a_batch_of_large_records_is_small(pipeline: Pipeline) -> None:
    """Whatever the limit, of records that have been fetched."""
    topic, large = pipeline.names.queries, bytes(900_000)
    write(pipeline.producer, [Record(topic, b"one", large, 0) for _ in range(COUNT)])
    with member(pipeline) as loop:
        taken = 0
        while taken < COUNT:
            works = loop.take(COUNT, 1.0)
            time.sleep(0.5)  # more is fetched meanwhile
            assert len(works) <= -(-BATCH_BYTES // len(large))
            taken += len(works)


def test_work_that_was_not_committed_is_done_again(pipeline: Pipeline) -> None:
    """A crash after the work and before the commit leaves no trace but the repetition."""
    fill(pipeline)
    with member(pipeline) as first:
        for work in take(first):
            copy(pipeline, first, work)
    assert copies(pipeline) == []
    with member(pipeline) as second:
        for work in take(second):
            copy(pipeline, second, work)
        second.flush()
    eventually(lambda: copies(pipeline) == list(range(COUNT)))


def test_what_was_finished_out_of_order_is_not_done_again(pipeline: Pipeline) -> None:
    """Of the records above a slow one only the unfinished ones are handed out after a crash."""
    fill(pipeline)
    with member(pipeline) as first:
        works = take(first)
        slow = {number(works[0]), number(works[7]), number(works[-1])}
        for work in works:
            if number(work) not in slow:
                copy(pipeline, first, work)
        first.flush()
    assert copies(pipeline) == sorted(set(range(COUNT)) - slow)
    with member(pipeline) as second:
        again = take(second, len(slow))
        assert {number(work) for work in again} == slow
        assert second.take(10, 0.5) == []
        for work in again:
            copy(pipeline, second, work)
        second.flush()
    assert copies(pipeline) == list(range(COUNT))
    with member(pipeline) as third:
        assert third.take(10, 1.0) == []


def test_what_was_finished_out_of_order_leaves_no_lag(pipeline: Pipeline) -> None:
    """The position moves over it when it is read again, even if nothing else comes."""
    works, slow = all_but_the_first_of_each(pipeline)
    with member(pipeline) as second:
        for _ in slow:
            (work,) = take(second, 1)
            copy(pipeline, second, work)
            second.flush()
        assert second.take(1, 0.5) == []
        second.flush()
        lags = second.lags()
        group = second._consumer.committed([TopicPartition(*key) for key in slow], timeout=15)
    ends = {key: 1 + max(w.offset for w in works if w.partition == key) for key in slow}
    assert lags is not None
    assert set(lags.values()) == {0}
    assert {(where.topic, where.partition): where.offset for where in group} == ends


def test_what_was_finished_stays_finished_when_the_log_is_cut(pipeline: Pipeline) -> None:
    """Retention may delete an unfinished record; those above it are not done again."""
    _, slow = all_but_the_first_of_each(pipeline)
    done = copies(pipeline)
    cuts = [TopicPartition(*work.partition, work.offset + 1) for work in slow.values()]
    admin = pipeline.kafka.admin()
    for cut in admin.delete_records(cuts).values():
        cut.result(15)
    with member(pipeline) as second:
        assert second.take(10, 1.0) == []
    assert copies(pipeline) == done


def test_a_topic_that_is_made_anew_under_a_member_is_read_from_its_start(
    pipeline: Pipeline,
) -> None:
    """Its new records have offsets that the member has done: it ends, and a restart reads them."""
    fill(pipeline)
    topic, admin = pipeline.names.queries, pipeline.kafka.admin()
    with member(pipeline) as loop:
        for work in take(loop):
            copy(pipeline, loop, work)
        loop.flush()
        admin.delete_topics([topic])[topic].result(15)
        eventually(lambda: not _error(admin.create_topics([NewTopic(topic, 2, 1)])[topic]))
        write(pipeline.kafka.producer(), [Record(topic, None, b"1", partition=0)])
        with pytest.raises((KafkaException, ConfigurationError)):
            eventually(lambda: loop.take(1, 0.1), 30)
    with member(pipeline) as successor:
        assert [number(work) for work in take(successor, 1)] == [1]


def make_anew(pipeline: Pipeline, count: int = 3 * COUNT) -> None:
    """Delete the topic, make it again, and write that many records to each of its partitions."""
    topic, admin = pipeline.names.queries, pipeline.kafka.admin()
    admin.delete_topics([topic])[topic].result(15)
    eventually(lambda: not _error(admin.create_topics([NewTopic(topic, 2, 1)])[topic]))
    numbers = range(100, 100 + count)
    records = [Record(topic, None, b"%d" % i, partition=p) for p in (0, 1) for i in numbers]
    write(pipeline.kafka.producer(), records)


def test_a_topic_that_is_made_anew_and_soon_has_more_records_is_read_from_its_start(
    pipeline: Pipeline,
) -> None:
    """Also where a member in the middle of its work commits positions of the old one in it."""
    fill(pipeline)
    with member(pipeline) as loop:
        works = take(loop)
        eventually(lambda: loop.take(0, 0.0) or loop._paused)  # it would look at once else
        make_anew(pipeline)
        for work in works:
            copy(pipeline, loop, work)
        loop.flush()

        def goes_on() -> None:
            for work in loop.take(1, 0.1):
                loop.complete(work, [])

        with pytest.raises(MadeAnewError, match=pipeline.names.queries):
            eventually(goes_on, 30)
        loop.flush()
    with member(pipeline) as successor:
        found = [number(work) for work in take(successor, 6 * COUNT)]
    assert sorted(found) == sorted([*range(100, 100 + 3 * COUNT)] * 2)


def commit_by_hand(pipeline: Pipeline, offset: int, metadata: str) -> None:
    """As a member that is gone, in both partitions."""
    topic, group = pipeline.names.queries, f"{pipeline.names.prefix}copier"
    consumer = pipeline.kafka.reader(group)
    offsets = [TopicPartition(topic, number, offset, metadata) for number in (0, 1)]
    consumer.commit(offsets=offsets, asynchronous=False)
    consumer.close()


def metadata_of(offset: int, finished: Sequence[int], topic_id: str | None) -> str:
    """What a member commits that has finished these records above `offset`."""
    window = Window(offset)
    window.topic_id = topic_id
    for each in (offset, *finished):
        assert window.begin(each)
    for each in finished:
        window.finish(each)
    return window.encode()


def test_a_position_of_another_topic_is_none(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither that nor what was finished above it: the topic's first record comes first."""
    fill(pipeline)
    commit_by_hand(pipeline, 2, metadata_of(2, [3, 4], "another"))
    with member(pipeline) as loop:
        assert sorted(map(number, take(loop))) == list(range(COUNT))
    assert "the topic was made anew; going on at 0" in caplog.text


def test_a_position_beyond_the_end_of_the_same_topic_is_its_end(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    """A broker lost what was done, and it is not done again; what comes next is.

    Also where the position is within the log again by the next start.
    """
    fill(pipeline)
    topic = pipeline.names.queries
    ids = topic_ids(pipeline.kafka, [topic])
    commit_by_hand(pipeline, 500, metadata_of(500, [501], ids[topic]))
    with member(pipeline) as loop:
        eventually(lambda: loop.take(1, 0.1) == [] and loop.lags())
        loop.flush()
    write(pipeline.producer, [Record(topic, None, b"7", partition=1)] * 500)
    with member(pipeline) as loop:
        assert [number(work) for work in take(loop, 500)] == [7] * 500
    assert "the log was cut at its end; going on at" in caplog.text


def test_what_was_finished_beyond_the_end_is_not_finished(pipeline: Pipeline) -> None:
    """A broker lost it, and other records come to stand there."""
    topic = pipeline.names.queries
    commit_by_hand(pipeline, 0, metadata_of(0, [1, 2], topic_ids(pipeline.kafka, [topic])[topic]))
    with member(pipeline) as loop:
        eventually(lambda: loop.take(1, 0.1) or loop.lags())
        write(pipeline.producer, [Record(topic, None, b"%d" % i, partition=0) for i in range(4)])
        assert [number(work) for work in take(loop, 4)] == [0, 1, 2, 3]


def test_metadata_without_a_topics_id_counts_as_it_is(pipeline: Pipeline) -> None:
    """An older build's: its position holds, and with the next commit the id stands beside it."""
    topic = pipeline.names.queries
    write(pipeline.producer, [Record(topic, None, b"%d" % i, partition=0) for i in range(6)])
    commit_by_hand(pipeline, 0, metadata_of(0, [1, 2, 4], None))
    with member(pipeline) as loop:
        works = take(loop, 3)
        assert [number(work) for work in works] == [0, 3, 5]
        copy(pipeline, loop, works[2])
        loop.flush()
        (committed,) = loop._consumer.committed([TopicPartition(topic, 0)], timeout=15)
    window = Window(0, committed.metadata)
    assert window.topic_id == topic_ids(pipeline.kafka, [topic])[topic]
    assert [i for i in range(6) if window.begin(i)] == [0, 3]


def test_the_last_records_come_last(pipeline: Pipeline) -> None:
    """What is told with a transaction stands behind the records of all its partitions."""
    fill(pipeline)
    done = 0

    def so_far() -> list[Record]:
        return [Record(pipeline.names.results, b"told", b"%d" % done)]

    with member(pipeline, last_records=so_far) as loop:
        for work in sorted(take(loop), key=lambda work: work.offset):
            done += 1
            loop.complete(work, so_far())
        loop.flush()
    told = [int(item.value() or b"-1") for item in pipeline.read(pipeline.names.results)]
    assert sorted(told) == [*range(1, COUNT + 1), COUNT]
    assert told[:-1] != sorted(told[:-1])  # those of the work stand by its partitions
    assert told[-1] == COUNT


def test_work_that_ends_during_a_commit_goes_into_the_next(pipeline: Pipeline) -> None:
    """Each record is copied once, whatever is completed while a transaction is under way."""
    fill(pipeline)
    with member(pipeline) as loop:
        for work in take(loop):
            copy(pipeline, loop, work)
            if not loop.is_committing:
                loop.commit()
        loop.flush()
        assert not loop.has_pending
    assert copies(pipeline) == list(range(COUNT))


def test_gathering_goes_on_while_a_transaction_is_under_way(pipeline: Pipeline) -> None:
    """Up to the limit or to its end, and each record is handed out once."""
    fill(pipeline)
    with member(pipeline) as loop:
        (first,) = take(loop, 1)
        large = [Record(pipeline.names.results, b"large", b"-1" * 50_000)] * 200
        loop.complete(first, large)
        loop.commit()
        assert loop.is_committing
        gathered = loop.gather(2, 0.0)
        assert len(gathered) == 2 or not loop.is_committing
        gathered += loop.gather(COUNT, 0.0)
        assert not loop.is_committing
        gathered += take(loop, COUNT - 1 - len(gathered))
        assert sorted(map(number, (first, *gathered))) == list(range(COUNT))


def test_partitions_that_leave_during_a_commit_are_not_done_twice(pipeline: Pipeline) -> None:
    """The member gives them up when the transaction under way has ended, and all is committed."""
    fill(pipeline)
    with member(pipeline, "0") as first:
        works = take(first)
        with member(pipeline, "1") as second:
            for work in works:
                copy(pipeline, first, work)
                if not first.is_committing:
                    first.commit()

            def second_has_its_part() -> bool:
                first.take(1, 0.1)
                assert second.take(1, 0.1) == []
                return bool(second.lags())

            eventually(second_has_its_part)
            assert first.take(1, 0.5) == second.take(1, 0.5) == []
            first.flush()
    assert copies(pipeline) == list(range(COUNT))


def test_a_commit_that_fails_is_told_at_the_next_turn(pipeline: Pipeline) -> None:
    """Also where nothing more is to be committed: a fenced member does not stay."""
    fill(pipeline)
    with member(pipeline) as zombie:
        works = take(zombie)
        with member(pipeline) as successor:
            copy(pipeline, zombie, works[0])
            zombie.commit()
            with pytest.raises(Fenced):
                eventually(lambda: zombie.take(1, 0.1))
            assert len(take(successor)) == COUNT
    assert copies(pipeline) == []


def test_a_zombie_cannot_write(pipeline: Pipeline) -> None:
    """Whoever starts in the same slot fences its predecessor, which writes nothing."""
    fill(pipeline)
    with member(pipeline) as zombie:
        works = take(zombie)
        with member(pipeline) as successor:
            for work in take(successor):
                copy(pipeline, successor, work)
            successor.flush()
            for work in works:
                copy(pipeline, zombie, work)
            with pytest.raises(Fenced):
                zombie.flush()
    assert copies(pipeline) == list(range(COUNT))


def test_a_member_that_the_group_went_on_without_writes_nothing(pipeline: Pipeline) -> None:
    """It was stopped in the middle of a rebalance, and its client goes on as if nothing had been.

    Meanwhile another has done the work of the partitions that it had kept.
    """
    fill(pipeline)
    names = pipeline.names
    given = (pipeline.bootstrap, names.queries, names.results, f"{names.prefix}copier", "1")
    command = [sys.executable, "-m", "tests.frozen_member", *given, str(COUNT)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as frozen:
        try:
            assert frozen.stdout is not None
            assert frozen.stdout.readline() == "took all\n"
            with member(pipeline) as other:
                for work in take(other):
                    copy(pipeline, other, work)
                other.flush()
                assert copies(pipeline) == list(range(COUNT))
                frozen.send_signal(signal.SIGCONT)
                eventually(lambda: (other.take(1, 0.1), frozen.poll() is not None)[1], 40)
        finally:
            frozen.kill()
    assert copies(pipeline) == list(range(COUNT))
    assert frozen.returncode == 70


def test_a_member_tells_what_is_left_of_its_partitions(pipeline: Pipeline) -> None:
    """Nothing before the group has spoken; work that has not been finished is left, too."""
    fill(pipeline)
    with member(pipeline) as loop:
        assert loop.lags() is None
        works = take(loop)
        lags = loop.lags()
        assert lags is not None
        assert sum(lag or 0 for lag in lags.values()) == COUNT
        for work in works[3:]:
            copy(pipeline, loop, work)
        loop.flush()
        lags = loop.lags()
        assert lags is not None
        assert sum(lag or 0 for lag in lags.values()) == 3


def test_a_member_without_a_partition_has_been_assigned_nothing(pipeline: Pipeline) -> None:
    """Which is something else than not to be assigned: it stands by."""
    fill(pipeline)
    with (
        member(pipeline, "0") as first,
        member(pipeline, "1") as second,
        member(pipeline, "2") as third,
    ):
        members = (first, second, third)
        for _ in range(200):
            for each in members:
                each.take(1, 0.05)
            held = [each.lags() for each in members]
            if sorted(-1 if lags is None else len(lags) for lags in held) == [0, 1, 1]:
                return
        raise AssertionError(held)


def test_a_revoked_partition_takes_its_results_along(pipeline: Pipeline) -> None:
    """Work finished for a partition that went to another member is not written by the first."""
    fill(pipeline)
    with member(pipeline, "0") as first:
        works = take(first)
        with member(pipeline, "1") as second:
            moved: list[Work] = []
            for _ in range(200):
                first.take(10, 0.05)
                moved += second.take(COUNT, 0.05)
                if moved:
                    break
            taken_away = {work.partition for work in moved}
            kept = [copy(pipeline, first, work) for work in works]
            assert kept == [work.partition not in taken_away for work in works]
            first.flush()
            expected = sum(work.partition in taken_away for work in works)
            moved += take(second, expected - len(moved)) if len(moved) < expected else []
            for work in moved:
                copy(pipeline, second, work)
            second.flush()
    assert copies(pipeline) == list(range(COUNT))


@contextmanager
def visitor(pipeline: Pipeline) -> Iterator[Consumer]:
    """A member of the same group that reads nothing and leaves it at once."""
    consumer = Consumer(
        {
            "bootstrap.servers": pipeline.bootstrap,
            "group.id": f"{pipeline.names.prefix}copier",
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.auto.commit": False,  # what a poll hands out stays to be read
        }
    )
    consumer.subscribe([pipeline.names.queries])
    try:
        yield consumer
    finally:
        consumer.close()


def test_a_partition_that_was_taken_away_while_paused_flows_when_it_comes_back(
    pipeline: Pipeline,
) -> None:
    """A member with its hands full pauses; what it loses and is given again is not paused."""
    fill(pipeline)
    with member(pipeline) as loop:
        take(loop, 1)
        eventually(lambda: loop.take(0, 0.0) or loop._paused)
        with visitor(pipeline) as other:
            eventually(lambda: loop.take(0, 0.0) or other.poll(0.05) or other.assignment())
        eventually(lambda: loop.take(0, 0.0) or len(loop._windows) == 2)
        again = {(work.partition, work.offset) for work in take(loop, COUNT - 1)}
    assert len(again) == COUNT - 1


def test_a_member_whose_place_in_the_group_was_taken_ends(pipeline: Pipeline) -> None:
    """Its client is dead for good and says so once; going on would mean to read nothing more."""
    fill(pipeline)
    with member(pipeline) as loop:
        take(loop, 1)
        group = f"{pipeline.names.prefix}copier"
        twin = pipeline.kafka.group_consumer(group, f"{group}-0")
        twin.subscribe([pipeline.names.queries])
        with pytest.raises(KafkaException, match="fenced by other consumer"):
            eventually(lambda: (loop.take(COUNT, 0.05), twin.poll(0.05)) is None)
        twin.close()
