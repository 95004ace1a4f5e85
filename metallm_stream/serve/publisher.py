"""From the sums of all slots to the policy on its topic, about once a second when they changed.

Where evidence is forgotten they also change with time: then a policy is published in each 64th
part of a half-life, with what the sums weigh as of that moment.

Invariant: versions on the topic only grow, and one learner at a time publishes, so that the
newest record of each arm always belongs to the newest version. PostgreSQL's lock says who; since
it is lost when PostgreSQL goes down, Kafka fences whoever published before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime

import orjson
from confluent_kafka import Message
from sqlalchemy import Connection as Database
from sqlalchemy import Engine

from metallm_stream.arms import Catalogue
from metallm_stream.errors import ConfigurationError
from metallm_stream.events import RiverPart, RiverState
from metallm_stream.kafka import (
    AbortNeededError,
    Connection,
    Follower,
    Record,
    TopicNames,
    Transactions,
    Watchdog,
    read_tails,
)
from metallm_stream.policy import Sums, fit, merged, to_records
from metallm_stream.postgres import (
    load_forgetting,
    load_offsets,
    load_slot_sums,
    newest_policy_version,
    next_policy_version,
    record_policy,
    slot_versions,
    try_publish_lock,
)
from metallm_stream.serve.pupil import PupilState

PUBLISH_LIMIT_S = 120.0
# Another learner publishes when the one that did has published nothing for so many refreshes.
SILENT_REFRESHES = 3
LARGEST_VERSION = 2**62
TAIL = 200  # records at the end of the topic among which the newest policy is looked for

log = logging.getLogger(__name__)
State = tuple[dict[str, tuple[int, int]], int, Mapping[str, float]]


class Publisher:
    """Fits the merged sums and publishes the fit.

    Parameters
    ----------
    connection, names, engine
        The cluster, its topics, and PostgreSQL.
    policy, encoder, dimensions
        What the published policy calls itself, and the encoder it goes with.
    refresh_s
        A policy is published at most this often.
    keep
        How many policies stay visible in SQL.
    now
        Time, aware UTC.
    """

    def __init__(
        self,
        connection: Connection,
        names: TopicNames,
        engine: Engine,
        *,
        policy: str,
        encoder: str,
        dimensions: int,
        refresh_s: float,
        keep: int,
        now: Callable[[], datetime],
    ) -> None:
        self._connection = connection
        self._names = names
        self._engine = engine
        self._policy = policy
        self._encoder = encoder
        self._dimensions = dimensions
        self._refresh_s = refresh_s
        self._keep = keep
        self._now = now
        self._due_at = 0.0
        self._published: State | None = None
        self._others: dict[str, tuple[tuple[int, int], Sums]] = {}
        self._above = _newest_version(connection, names)
        self._watchdog = Watchdog()
        self._transactions: Transactions | None = None
        self._version = 0
        self._newest = (0, 0.0)
        self._river_head: RiverState | None = None

    def require_same_database(self) -> None:
        """Raise `ConfigurationError` if there is a policy, and the database knows nothing of any.

        The first policy from it would soon replace all that was learned. One that learned nothing
        may be from here: a learner publishes before the group has given it partitions.
        """
        with self._engine.begin() as conn:
            is_used = bool(load_offsets(conn)) or newest_policy_version(conn) > 0
        if self._above and not is_used:
            raise ConfigurationError(
                f"topic {self._names.policy!r} holds policy {self._above}, but this database has "
                "learned nothing yet and would replace it: DATABASE_URL names another database, or "
                "an empty one. Restore a backup, or set METALLM_LEARNER__BEGINS_ANEW=true to learn "
                "anew from what the topics still hold"
            )

    def publish_if_due(
        self, slot: str, sums: Sums, catalogue: Catalogue, learned: PupilState | None = None
    ) -> bool:
        """Publish if the time has come and anything has changed since; whether it did.

        What was `learned` beside the sums goes with them. It changes only together with them.
        """
        if time.monotonic() < self._due_at:
            return False
        self._due_at = time.monotonic() + self._refresh_s
        try:
            return self._publish_changes(slot, sums, catalogue, learned)
        except AbortNeededError as exc:
            assert self._transactions is not None
            self._transactions.abort(exc)
            return False

    def _publish_changes(
        self, slot: str, sums: Sums, catalogue: Catalogue, learned: PupilState | None
    ) -> bool:
        with self._watchdog.limit("publishing", PUBLISH_LIMIT_S), self._engine.begin() as conn:
            versions = slot_versions(conn)
            arms = sorted(self._arms(conn, slot, sums, versions) | set(catalogue))
            clocks = load_forgetting(conn).reading(arms, self._now())
            state = (versions, catalogue.revision, clocks)
            if state == self._published or not arms or not try_publish_lock(conn):
                return False
            transactions = self._in_charge(conn)
            if transactions is None:
                return False
            whole = merged([sums, *self._other_sums()], self._dimensions)
            self._publish(conn, transactions, whole.as_of(clocks), arms, learned)
        self._published = state
        return True

    def close(self) -> None:
        """Stop watching."""
        self._watchdog.close()
        if self._transactions is not None:
            self._transactions.close()

    def _in_charge(self, conn: Database) -> Transactions | None:
        """The transactions of whoever publishes; None while another learner does.

        To take over fences that learner, whose transaction may still be open.
        """
        newest = newest_policy_version(conn)
        if newest != self._newest[0]:
            self._newest = newest, time.monotonic()
        if self._transactions is not None and newest == self._version:
            return self._transactions
        silent_s = time.monotonic() - self._newest[1]
        if self._transactions is not None and silent_s < SILENT_REFRESHES * self._refresh_s:
            return None
        if self._transactions is not None:
            self._transactions.close()
        name = f"{self._names.prefix}metallm-publisher"
        self._transactions = Transactions(self._connection, name)
        self._transactions.start()
        self._river_head = None
        return self._transactions

    def _arms(
        self, conn: Database, slot: str, sums: Sums, versions: dict[str, tuple[int, int]]
    ) -> set[str]:
        """Arms in any slot's sums, after the other slots' sums were brought up to date."""
        self._others = {name: held for name, held in self._others.items() if name in versions}
        for other, version in versions.items():
            known = self._others.get(other)
            if other != slot and (known is None or known[0] != version):
                fresh = Sums.from_bytes(load_slot_sums(conn, other), self._dimensions)
                self._others[other] = (version, fresh)
        return {arm for held in (sums, *self._other_sums()) for arm in held.arms}

    def _other_sums(self) -> list[Sums]:
        return [sums for _, sums in self._others.values()]

    def _publish(
        self,
        conn: Database,
        transactions: Transactions,
        sums: Sums,
        arms: Sequence[str],
        learned: PupilState | None,
    ) -> None:
        fitted = fit(sums, arms)
        version = next_policy_version(conn, above=self._above)
        head, parts = self._river(learned, version)
        manifest, records = to_records(
            fitted,
            sums,
            policy=self._policy,
            version=version,
            published_at=self._now(),
            encoder=self._encoder,
        )
        manifest = manifest.model_copy(update={"river": head})
        record_policy(conn, manifest, records, keep=self._keep)
        topic = self._names.policy
        transactions.write(
            [
                *(Record.of(topic, f"{self._policy}/{arm.arm}", arm) for arm in records),
                *(Record.of(topic, f"river/{part.part}", part) for part in parts),
                Record.of(topic, self._policy, manifest),
            ]
        )
        self._river_head, self._version = head, version
        log.debug("policy %d published, %.0f observations", version, manifest.observations)

    def _river(
        self, learned: PupilState | None, version: int
    ) -> tuple[RiverState | None, list[RiverPart]]:
        """The state's description, and its parts where the topic does not have them yet."""
        if learned is None:
            return None, []
        known = self._river_head
        if known is not None and known.sha256 == learned.head.sha256:
            return known.model_copy(update={"lessons": learned.lessons}), []
        head = learned.head.model_copy(update={"version": version})
        parts = [
            RiverPart(policy=head.policy, version=version, part=number, state=state)
            for number, state in enumerate(learned.parts)
        ]
        return head, parts


def _newest_version(connection: Connection, names: TopicNames) -> int:
    """The version of the last policy on the topic: they only grow, so its end has the newest."""
    if newest := max(read_tails(connection, names.policy, [0], TAIL, _version)[0], default=0):
        return newest
    # Behind it are so many budgets' accounts.
    with closing(Follower(connection, [names.policy])) as follower:
        return max(map(_version, follower.catch_up()), default=0)


def _version(message: Message) -> int:
    try:
        version = int(orjson.loads(message.value() or b"{}").get("version", 0))
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
        return 0
    return version if version <= LARGEST_VERSION else 0
