"""PostgreSQL: its version, the schema's revision, the roles, its size, and how far the learner is.

Invariant: nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from metallm_stream.cli.cluster import TIMEOUT_S
from metallm_stream.cli.complaints import one_line
from metallm_stream.cli.doctor.finding import Finding, ok, problem, warning
from metallm_stream.errors import counted
from metallm_stream.kafka import Connection, TopicNames, partitions_of, topic_ids, watermarks
from metallm_stream.postgres import (
    Position,
    check_revision,
    current_revision,
    database_url,
    open_engine,
    roles_exist,
    sums_bytes,
)
from metallm_stream.serve.claim import lost
from metallm_stream.settings import Settings

BEHIND = 10_000
# Of sums that are no longer in force there may be those of some minutes, until they are vacuumed.
BLOATED_BYTES = 100_000_000
BLOATED_TIMES = 1_000
VERSION = text("SHOW server_version")
READ_ONLY = text("SELECT current_setting('transaction_read_only')::boolean")
GUARDED = text(
    "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('metallm') "
    "AND relkind IN ('r', 'p') AND NOT relispartition AND row_security_active(oid) ORDER BY 1"
)
POSITIONS = text("SELECT topic, partition, epoch, next_offset, topic_id FROM metallm.offsets")


def connect(settings: Settings) -> tuple[Engine | None, Finding]:
    """The database, if it answers; raises `ConfigurationError` if no URL is set."""
    engine = open_engine(settings.database(), application_name="metallm-doctor", pool_size=1)
    shown = database_url(settings.database()).set(drivername="postgresql", query={})
    where = shown.render_as_string(hide_password=True)
    try:
        with engine.connect() as conn:
            version = conn.execute(VERSION).scalar_one()
    except OperationalError as exc:
        return None, problem(
            "postgresql",
            f"{where}: {one_line(exc.orig or exc)}",
            "start PostgreSQL (`metallm up` runs one), or mend DATABASE_URL",
        )
    return engine, ok("postgresql", f"{version} at {where}")


def schema(settings: Settings) -> Iterator[Finding]:
    """Whether the tables are those of this release, and whether the group roles exist."""
    url = settings.database()
    check_revision(url)
    yield ok("schema", f"revision {current_revision(url)} is what this release needs")
    if not roles_exist(url):
        yield warning(
            "roles",
            "metallm_service and metallm_analyst do not exist",
            "as an administrator: metallm db roles | psql ...",
        )
    else:
        yield ok("roles", "metallm_service and metallm_analyst exist")


def usable(engine: Engine) -> Iterator[Finding]:
    """Whether it takes writes, and shows all rows; nothing, if all is well."""
    with engine.connect() as conn:
        is_read_only = conn.execute(READ_ONLY).scalar_one()
        guarded = conn.execute(GUARDED).scalars().all()
    if is_read_only:
        yield problem(
            "postgresql",
            "takes no writes",
            "let DATABASE_URL name a primary, and see default_transaction_read_only",
        )
    if guarded:
        yield problem(
            "postgresql",
            f"row level security is in force on {', '.join(guarded)}: learners end",
            "ALTER ROLE ... BYPASSRLS, for the user of DATABASE_URL",
        )


def sums(engine: Engine) -> Iterator[Finding]:
    """Whether replaced sums are vacuumed, which a transaction that stays open prevents."""
    with engine.connect() as conn:
        taken, in_force = sums_bytes(conn)
    if taken > max(BLOATED_BYTES, BLOATED_TIMES * in_force):
        yield warning(
            "sums",
            f"{taken / 1e6:,.0f} MB on disk, {in_force / 1e6:,.1f} MB in force: somebody's "
            "transaction has been open for long, or was",
            "SELECT pid, usename, xact_start FROM pg_stat_activity ORDER BY 3, and end the oldest",
        )
    else:
        yield ok("sums", f"{taken / 1e6:,.0f} MB on disk, {in_force / 1e6:,.1f} MB in force")


def lag(connection: Connection, topic_names: TopicNames, engine: Engine) -> Iterator[Finding]:
    """How many records the learner has not read yet, and whether it can go on where it stands."""
    with engine.connect() as conn:
        known = {(row.topic, row.partition): Position(*row) for row in conn.execute(POSITIONS)}
    read = {topic for topic, _ in known} - {*topic_names.joined}
    total, stands = 0, False
    with closing(connection.reader()) as consumer:
        existing = consumer.list_topics(timeout=TIMEOUT_S).topics
        topics = [*topic_names.joined, *sorted(read & existing.keys())]
        ids = topic_ids(connection, topics)
        for topic in topics:
            for where in partitions_of(consumer, topic):
                low, high = watermarks(consumer, where)
                stored = known.get((topic, where.partition))
                position = low if stored is None else stored.next_offset
                if stored is not None and (found := lost(stored, ids.get(topic), low, high)):
                    stands = True
                    yield problem("learner", f"{found[0]}; no learner goes on", found[1])
                if topic in topic_names.joined:
                    total += max(0, high - position)
    behind = f"{counted(total, 'record')} behind"
    if total > BEHIND:
        yield warning("learner", behind, "run more learners, see its log")
    elif not stands:
        yield ok("learner", behind)
