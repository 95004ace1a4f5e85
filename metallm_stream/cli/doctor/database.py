"""PostgreSQL: its version, the schema's revision, the roles, and how far the learner is.

Invariant: nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator

from confluent_kafka import TopicPartition
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from metallm_stream.cli.cluster import TIMEOUT_S, ends
from metallm_stream.cli.complaints import one_line
from metallm_stream.cli.doctor.finding import Finding, ok, problem, warning
from metallm_stream.kafka import Connection, TopicNames
from metallm_stream.postgres import (
    check_revision,
    current_revision,
    database_url,
    open_engine,
    roles_exist,
)
from metallm_stream.settings import Settings

BEHIND = 10_000
VERSION = text("SHOW server_version")
POSITIONS = text("SELECT topic, partition, next_offset FROM metallm.lag")


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


def lag(connection: Connection, topic_names: TopicNames, engine: Engine) -> Iterator[Finding]:
    """How many records the learner has not read yet, by the topics' true ends."""
    with engine.connect() as conn:
        known = {(topic, partition): offset for topic, partition, offset in conn.execute(POSITIONS)}
    total = 0
    consumer = connection.reader()
    try:
        for topic in topic_names.joined:
            for end in ends(consumer, topic):
                position = known.get((topic, end.partition))
                if position is None:
                    where = TopicPartition(topic, end.partition)
                    position = consumer.get_watermark_offsets(where, TIMEOUT_S)[0]
                if position > end.offset:
                    yield problem(
                        "learner",
                        f"{topic}[{end.partition}] ends at {end.offset}, the learner stands at "
                        f"{position}: the topic was made anew",
                        "set next_offset to 0 for it, and topic_id to NULL, in metallm.offsets",
                    )
                total += max(0, end.offset - position)
    finally:
        consumer.close()
    if total > BEHIND:
        yield warning("learner", f"{total:,} records behind", "run more learners, see its log")
    else:
        yield ok("learner", f"{total:,} records behind")
