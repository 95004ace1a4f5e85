"""The users of the demo: they ask at a steady rate, read their results, and judge some of them.

They wait while too much is under way. What it costs to find out which arm is best is then a number
of queries, and hardly depends on how fast the machine is.

Invariant: a judgement is sent only for a result that was read, and says what the recording says of
the arm that answered; a wrong first one is always followed by its correction.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import orjson
from confluent_kafka import KafkaError, Message, TopicPartition

from metallm_stream.cli.demo.recording import Recording
from metallm_stream.cli.demo.schedule import Schedule
from metallm_stream.errors import MetallmError
from metallm_stream.events import Feedback, Query
from metallm_stream.kafka import (
    Connection,
    Record,
    TopicNames,
    partitions_of,
    raise_unless_passing,
)

LEAVE_WITHIN_S = 5.0
RECENT = 200
UNDER_WAY_S = 3.0
Now = Callable[[], float]


class Users:
    """All users at once, in one thread.

    Parameters
    ----------
    kafka, names
        The cluster and its topics.
    recording, plan
        What is asked, and who judges when.
    rate
        Queries a second; fewer while as many as they ask in 3 s are not answered, or judgements of
        them not in force.
    clock
        Seconds, never going back.
    """

    def __init__(
        self,
        kafka: Connection,
        names: TopicNames,
        recording: Recording,
        plan: Schedule,
        rate: float,
        clock: Now = time.monotonic,
    ) -> None:
        self._names = names
        self._recording = recording
        self._plan = plan
        self._rate = rate
        self._most_under_way = max(1, round(UNDER_WAY_S * rate))
        self._clock = clock
        self._number = {query_id: k for k, query_id in enumerate(recording.query_ids)}
        self._column = {arm: k for k, arm in enumerate(recording.arms)}
        self._answered_by: dict[int, str] = {}
        self._due: list[tuple[float, int, Callable[[], Record]]] = []
        self._drawn = 0
        self._failures: list[str] = []
        self._producer = kafka.producer()
        self._consumer = kafka.reader(f"{names.prefix}metallm-demo-users")
        partitions = partitions_of(self._consumer, names.results)
        self._consumer.assign([TopicPartition(w.topic, w.partition, 0) for w in partitions])
        self._next_s = clock()
        self.asked = 0
        self.answered = 0
        self.labelled = 0
        self.feedback_sent = 0
        self.recent_arms: deque[str] = deque(maxlen=RECENT)

    def step(self, learned: int) -> None:
        """Ask and judge what is due, and read what has come, waiting for it a little.

        `learned` is how many judgements the policy in force has learned from.
        """
        self._ask(learned)
        self._judge()
        for message in self._consumer.consume(500, 0.02):
            self._read(message)
        self._producer.poll(0)
        if self._failures:
            raise MetallmError(f"a record was not written: {self._failures[0]}")

    @property
    def is_done(self) -> bool:
        """Whether everything was asked, answered and judged."""
        return self.answered == self.asked == len(self._recording) and not self._due

    def close(self) -> None:
        """Leave, once the brokers have what was sent."""
        self._producer.flush(LEAVE_WITHIN_S)
        self._consumer.close()

    def _ask(self, learned: int) -> None:
        now_s = self._clock()
        while self.asked < len(self._recording) and self._next_s <= now_s:
            if self.asked - self.answered + self.labelled - learned >= self._most_under_way:
                self._next_s = now_s
                return
            self._send(self._query(self.asked))
            if self._plan.asked_again[self.asked]:
                delay_s = float(self._plan.second_delay_s[self.asked])
                self._later(delay_s, partial(self._query, self.asked))
            self.asked += 1
            self._next_s += 1 / self._rate

    def _query(self, number: int) -> Record:
        recording = self._recording
        query = Query(
            query_id=recording.query_ids[number],
            text=recording.outcomes.texts[number],
            task=recording.tasks[number],
        )
        return Record.of(self._names.queries, query.query_id, query)

    def _judge(self) -> None:
        while self._due and self._due[0][0] <= self._clock():
            record = heapq.heappop(self._due)[2]()
            self.feedback_sent += record.topic == self._names.feedback
            self._send(record)

    def _read(self, message: Message) -> None:
        if (error := message.error()) is not None:
            raise_unless_passing(error)
            return
        result = orjson.loads(message.value() or b"{}")
        number = self._number.get(result.get("query_id"))
        if number is None or number in self._answered_by:
            return  # whoever checks the topics later will complain
        arm = result.get("arm", "")
        self._answered_by[number] = arm
        self.answered += 1
        self.recent_arms.append(arm)
        if arm and self._plan.labelled[number]:
            self.labelled += 1
            self._later(float(self._plan.delay_s[number]), lambda: self._first_feedback(number))

    def _first_feedback(self, number: int) -> Record:
        arm = self._answered_by[number]
        quality = float(self._recording.outcomes.quality[number, self._column[arm]])
        delay_s = float(self._plan.second_delay_s[number])
        right = self._feedback(number, quality)
        if self._plan.corrected[number]:
            self._later(delay_s, lambda: self._feedback(number, quality))
            return self._feedback(number, 1.0 - quality)
        if self._plan.twice[number]:
            self._later(delay_s, lambda: right)
        return right

    def _feedback(self, number: int, score: float) -> Record:
        query_id = self._recording.query_ids[number]
        judged = Feedback(query_id=query_id, score=score, given_at=datetime.now(UTC))
        return Record.of(self._names.feedback, query_id, judged)

    def _later(self, delay_s: float, record: Callable[[], Record]) -> None:
        self._drawn += 1
        heapq.heappush(self._due, (self._clock() + delay_s, self._drawn, record))

    def _send(self, record: Record) -> None:
        record.produce(self._producer, self._delivered)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(f"{message.topic()}: {error}")
