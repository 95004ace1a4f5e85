"""The router: query events in, decisions and calls out, in one transaction with the offsets.

Invariant: a query_id that is seen again on its partition within the window of recent ids gets no
second decision. The window is rebuilt from the decisions themselves, so no state is kept.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

import numpy as np
from confluent_kafka import Message

from metallm_stream.arms import Catalogue
from metallm_stream.encode import Encoder
from metallm_stream.errors import InvalidEvent
from metallm_stream.events import Decision, Query, Result, query_id_in
from metallm_stream.kafka import (
    Connection,
    ExactlyOnce,
    Partition,
    Record,
    TopicNames,
    Work,
    dead_letter,
    header,
    no_topic,
    providers_with_topics,
    read_tails,
    recorded_at,
    traced,
)
from metallm_stream.policy import Chooser, Stateful
from metallm_stream.route import (
    Arrival,
    Budget,
    Decided,
    Outages,
    Pacer,
    RecentIds,
    Reservation,
    TradeOff,
    decide,
    reservation,
)
from metallm_stream.serve.knowledge import Knowledge
from metallm_stream.serve.lost_positions import after_decisions
from metallm_stream.serve.router_metrics import RouterMetrics

SERVICE = "router"
FINGERPRINT = "metallm.fingerprint"
MAX_QUERY_BYTES = 1024 * 1024
PROVIDERS_EVERY_S = 5.0

log = logging.getLogger(__name__)


class _Decided(NamedTuple):
    """What is remembered of a decision; of those there may be many."""

    query_id: str
    mark: str
    reservation: Reservation | None


class Router:
    """Decides queries in micro-batches until it is told to stop.

    Parameters
    ----------
    connection, names
        The cluster and its topics.
    encoder, chooser, trade_off
        How a query becomes a context, a context a choice, and what the choice is to maximise.
    budgets
        What may be spent.
    slot
        Which replica this is.
    batch_size, linger_s
        A transaction holds at most so many queries, and waits at most so long for the first.
    recent_ids
        How many ids are remembered for each partition.
    rng, now
        Randomness and time (aware UTC).
    """

    def __init__(
        self,
        connection: Connection,
        names: TopicNames,
        encoder: Encoder,
        chooser: Chooser,
        trade_off: TradeOff,
        budgets: Sequence[Budget],
        *,
        slot: str,
        batch_size: int,
        linger_s: float,
        recent_ids: int,
        rng: np.random.Generator,
        now: Callable[[], datetime],
    ) -> None:
        self.metrics = RouterMetrics(slot)
        self.metrics.reads([names.queries])
        self._connection = connection
        self._names = names
        self._encoder = encoder
        self._chooser = chooser
        self._trade_off = trade_off
        self._pacer = Pacer(budgets) if budgets else None
        self._outages = Outages()
        self._batch_size = batch_size
        self._linger_s = linger_s
        self._recent_ids = recent_ids
        self._rng = rng
        self._now = now
        self._recent: dict[int, RecentIds] = {}
        self._usable = (-1, 0.0, Catalogue())
        self._admin = connection.admin()
        rule = chooser if isinstance(chooser, Stateful) else None
        self._knowledge = Knowledge(connection, names, encoder.name, rule, encoder.dimensions)
        group = f"{names.prefix}metallm-router"
        self._loop = ExactlyOnce(
            connection,
            [names.queries],
            group=group,
            slot=slot,
            unplaced=partial(after_decisions, connection, names, group),
            on_assigned=self._remember,
            on_dropped=self._forget,
            on_committed=self.metrics.transaction_s.observe,
            on_aborted=self.metrics.aborts.inc,
        )

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set, then commit what is done and leave."""
        self._knowledge.catch_up()
        self._loop.start()
        log.info("router is ready")
        while not stop.is_set():
            self.step()
        self._loop.close()
        self._knowledge.close()

    def step(self) -> int:
        """Route one micro-batch; returns its number of records."""
        self._knowledge.refresh()
        if self._pacer is not None:
            for place, account in self._knowledge.take_accounts().items():
                if account is None:
                    self._pacer.forget(*place)
                else:
                    self._pacer.adopt(account)
        for health in self._knowledge.take_health():
            self._outages.apply(health, self._now())
        works = self._loop.gather(self._batch_size, self._linger_s)
        arrived = [item for work in works if (item := self._read(work)) is not None]
        if arrived:
            self._route(arrived)
        self._loop.commit()
        self.metrics.records.labels(self._names.queries).inc(len(works))
        self.metrics.knows(self._knowledge.catalogue, self._knowledge.published)
        self.metrics.stepped(self._loop.lags)
        return len(works)

    def _read(self, work: Work) -> tuple[Work, Arrival] | None:
        """The query, or None if the record ends here: unreadable, or seen before."""
        value, query = work.message.value(), None
        try:
            query = _parse(value)
            where = (work.partition[1], work.offset)
            arrival = Arrival(query, *where, recorded_at(work.message))
            is_new = self._is_new(arrival)
        except InvalidEvent as exc:
            topic = self._names.dead_letters(self._names.queries)
            self._loop.complete(work, [dead_letter(work.message, topic, SERVICE, exc.reason)])
            self.metrics.dead_letters.labels(self._names.queries).inc()
            log.warning(
                "query at %s@%d refused: %s",
                *(work.partition, work.offset, exc.reason),
                extra={"query_id": _id_in(value) if query is None else query.query_id},
            )
            return None
        if not is_new:
            self._loop.complete(work, [])
            return None
        return work, arrival

    def _is_new(self, arrival: Arrival) -> bool:
        """Whether the id is new in its window; raises `InvalidEvent` if it was another query's."""
        recent, query, mark = self._recent[arrival.partition], arrival.query, arrival.fingerprint
        known = recent.seen(query.query_id)
        if known is None:
            recent.add(query.query_id, mark)
        elif known != mark:
            raise InvalidEvent(
                f"query_id: {query.query_id!r} was asked before with another text, system, "
                "messages, labels or task; use a new query_id for a new query"
            )
        return known is None

    def _route(self, arrived: Sequence[tuple[Work, Arrival]]) -> None:
        arrivals = [arrival for _, arrival in arrived]
        decided = decide(
            arrivals,
            self._encoder.encode([arrival.query.text for arrival in arrivals]),
            catalogue=self._arms(),
            published=self._knowledge.published,
            chooser=self._chooser,
            defaults=self._trade_off,
            rng=self._rng,
            now=self._now(),
            encoder=self._encoder.name,
            pacer=self._pacer,
            outages=self._outages,
        )
        self.metrics.decided(decided)
        for (work, arrival), choice in zip(arrived, decided, strict=True):
            records = self._records(arrival, choice)
            self._loop.complete(work, traced(records, work.message))

    def _records(self, arrival: Arrival, choice: Decided) -> list[Record]:
        names, query_id = self._names, arrival.query.query_id
        mark = ((FINGERPRINT, arrival.fingerprint.encode()),)
        written = Record(names.decisions, query_id.encode(), choice.value, arrival.partition, mark)
        if choice.call is None:
            decision = choice.decision
            result = Result(
                query_id=query_id, failure=decision.refusal, finished_at=decision.decided_at
            )
            return [written, Record.of(names.results, query_id, result)]
        topic = names.calls(choice.ranking[0].provider)
        return [written, Record(topic, arrival.call_id.encode(), choice.call)]

    def _arms(self) -> Catalogue:
        """The catalogue without arms whose provider has no topic, which nobody would answer."""
        catalogue = self._knowledge.catalogue
        revision, checked_at, usable = self._usable
        complete = len(usable) == len(catalogue)
        fresh = time.monotonic() - checked_at < PROVIDERS_EVERY_S
        if revision == catalogue.revision and (complete or fresh):
            return usable
        providers = providers_with_topics(self._admin, self._names)
        usable = Catalogue()
        for arm, model in catalogue.arms.items():
            if model.provider in providers:
                usable.apply(arm, model)
            else:
                topic = no_topic(self._names.calls(model.provider))
                log.warning("arm %r is left out: %s", arm, topic)
        self._usable = (catalogue.revision, time.monotonic(), usable)
        return usable

    def _remember(self, partitions: list[Partition]) -> None:
        topic, numbers = self._names.decisions, [partition for _, partition in partitions]
        tails = read_tails(self._connection, topic, numbers, self._recent_ids, self._decided)
        for partition in numbers:
            recent = RecentIds(self._recent_ids)
            for decided in filter(None, tails.pop(partition)):
                recent.add(decided.query_id, decided.mark)
                if self._pacer is not None and decided.reservation is not None:
                    self._pacer.reserve(*decided.reservation)
            self._recent[partition] = recent

    def _decided(self, message: Message) -> _Decided | None:
        """What is remembered of a decision read back; None of what is not ours."""
        mark = header(message, FINGERPRINT)
        if mark is None:
            return None
        query_id = (message.key() or b"").decode(errors="replace")
        reservation = None if self._pacer is None else _reservation(message)
        return _Decided(query_id, mark.decode(errors="replace"), reservation)

    def _forget(self, partitions: list[Partition]) -> None:
        for _, partition in partitions:
            self._recent.pop(partition, None)
            if self._pacer is not None:
                self._pacer.give_up(partition)


def _reservation(message: Message) -> Reservation | None:
    """What a decision read back has reserved, which no published account may count yet."""
    try:
        return reservation(Decision.parse(message.value()))
    except InvalidEvent as exc:
        log.error("decision at offset %s: not charged: %s", message.offset(), exc.reason)
        return None


def _parse(value: bytes | None) -> Query:
    """The query; a topic of the user's own may let records through that are too long for ours."""
    if value is not None and len(value) > MAX_QUERY_BYTES:
        raise InvalidEvent(
            f"the record has {len(value)} bytes, {MAX_QUERY_BYTES} are allowed: shorten it"
        )
    return Query.parse(value)


def _id_in(value: bytes | None) -> str | None:
    """The id of what is no query, if it has one; what is too long is not looked into."""
    if value is None or len(value) > MAX_QUERY_BYTES:
        return None
    return query_id_in(value)
