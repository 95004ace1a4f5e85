"""A steady load on a whole stream, seen from the outside: queries in, results and labels back.

Invariant: what is counted is what users would see. A result counts when a committed reader has it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Self

from confluent_kafka import Consumer

from benchmarks.stream.stage import Stage
from metallm_stream.embedded import Child
from metallm_stream.events import Feedback, Model, Query
from metallm_stream.kafka import Record
from metallm_stream.kafka.write import begin_write

LABELS = ("yes", "no")
PROVIDER = "recorded"
_WORDS = "Is it true, and would you say so again if somebody asked for the reasons of it? "


class Load:
    """Asks `rate` queries a second in a thread of its own and judges a share of the answers.

    Parameters
    ----------
    texts
        Asked over and over, each time as a query of its own.
    label_share
        Of the answered queries, how many get a label, at once.
    unanswered
        No query is asked while so many have no result: as much as the stream takes, and no more.

    Attributes
    ----------
    rate
        Queries a second; may be changed at any time.
    asked_s, answered_s
        When each query was written, and when each of its results was read; monotonic seconds.
    judged
        The queries that were given a label.
    """

    def __init__(
        self,
        stage: Stage,
        texts: Sequence[str],
        *,
        rate: float,
        label_share: float = 0.5,
        unanswered: float = float("inf"),
    ) -> None:
        self.rate = rate
        self._unanswered = unanswered
        self.asked_s: dict[str, float] = {}
        self.answered_s: dict[str, list[float]] = defaultdict(list)
        self.judged: set[str] = set()
        self._stage = stage
        self._texts = texts
        self._label_share = label_share
        self._over = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def wait(self, within_s: float) -> None:
        """Ask no more, and wait for the answers; raises `AssertionError` when some do not come."""
        self._over.set()
        deadline = time.monotonic() + within_s
        while len(self.answered_s) < len(self.asked_s) and time.monotonic() < deadline:
            time.sleep(0.05)
        missing = len(self.asked_s) - len(self.answered_s)
        assert not missing, f"{missing} of {len(self.asked_s)} queries have no result"

    def longest_gap_s(self, since_s: float, until_s: float) -> float:
        """The longest time without any result, that of a pause which begins before `until_s`."""
        read = sorted(at for times in self.answered_s.values() for at in times if at > since_s)
        gaps = zip([since_s, *read], read, strict=False)
        return max((after - before for before, after in gaps if before < until_s), default=0.0)

    def latencies_s(self, since_s: float, until_s: float) -> list[float]:
        """From writing to reading, for the queries that were written in between."""
        return [
            self.answered_s[key][0] - at
            for key, at in self.asked_s.items()
            if since_s <= at < until_s and key in self.answered_s
        ]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._closed.set()
        self._thread.join()
        self._stage.producer.flush(30)

    def _run(self) -> None:
        due, last_s = 0.0, time.monotonic()
        with self._stage.reader(self._stage.names.results) as consumer:
            while not self._closed.is_set():
                now_s = time.monotonic()
                room = self._unanswered - len(self.asked_s) + len(self.answered_s)
                due, last_s = min(due + self.rate * (now_s - last_s), room), now_s
                if due >= 1 and not self._over.is_set():
                    for _ in range(int(due)):
                        self._ask()
                    due -= int(due)
                self._read(consumer)

    def _ask(self) -> None:
        number = len(self.asked_s)
        key = str(uuid.uuid4())
        query = Query(query_id=key, text=self._texts[number % len(self._texts)], labels=LABELS)
        self.asked_s[key] = time.monotonic()
        begin_write(self._stage.producer, Record.of(self._stage.names.queries, key, query))

    def _read(self, consumer: Consumer) -> None:
        for message in consumer.consume(500, 0.005):
            if message.error() is not None:
                continue
            key = (message.key() or b"").decode()
            if key not in self.asked_s:
                continue  # of an earlier load
            self.answered_s[key].append(time.monotonic())
            if len(self.judged) < self._label_share * len(self.answered_s):
                self.judged.add(key)
                given = Feedback(query_id=key, label="yes")
                begin_write(self._stage.producer, Record.of(self._stage.names.feedback, key, given))


def texts(count: int, characters: int) -> list[str]:
    """So many different prompts of about this length."""
    filling = _WORDS * (characters // len(_WORDS) + 1)
    return [f"Question {number}: {filling}"[:characters] for number in range(count)]


def open_vendor(stage: Stage, asked: Sequence[str], arms: int = 2, *options: str) -> Child:
    """A vendor of as many arms, in the catalogue; the first is always right and the dearest."""
    known: dict[str, Any] = {
        f"arm{arm}": {"answer": "yes" if arm == 0 else "no", "cost": 0.01 / (1 + arm)}
        for arm in range(arms)
    }
    vendor = stage.vendor(PROVIDER, dict.fromkeys(asked, known), *options, labels=LABELS)
    stage.add_models([Model(arm=name, provider=PROVIDER, model=name) for name in known])
    return vendor
