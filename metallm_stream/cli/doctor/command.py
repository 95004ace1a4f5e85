"""`metallm doctor`: all checks, one line a finding.

Invariant: no check is left out because another found something, unless it needs what is missing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import click

from metallm_stream.arms import Catalogue
from metallm_stream.cli.cluster import TIMEOUT_S
from metallm_stream.cli.doctor import database, installation, kafka
from metallm_stream.cli.doctor.finding import Finding, State, guarded, ok, problem
from metallm_stream.errors import ConfigurationError, counted
from metallm_stream.kafka import Connection
from metallm_stream.serve.knowledge import read_catalogue
from metallm_stream.serve.surroundings import names, utc_now
from metallm_stream.settings import Settings, load

COLOURS = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "red"}


@click.command("doctor")
def doctor() -> None:
    """Tell what is reachable and whether it fits: each finding in a line, with its remedy.

    Looks at versions, settings, keys (whether they are set), the encoder, Kafka and its topics,
    models, the policy, running services, PostgreSQL and its schema, and the learner's lag. Writes
    nothing. Exits with 1 if there is any problem; warnings are none.
    """
    seen: Counter[State] = Counter()
    for finding in examine():
        seen[finding.state] += 1
        mark = click.style(f"{finding.state:<8}", fg=COLOURS[finding.state], bold=True)
        remedy = f"  → {finding.remedy}" if finding.remedy else ""
        click.echo(f"{mark} {finding.about}: {finding.said}{remedy}")
    click.echo(
        f"{counted(seen[State.PROBLEM], 'problem')}, {counted(seen[State.WARNING], 'warning')}"
    )
    if seen[State.PROBLEM]:
        sys.exit(1)


def examine() -> Iterator[Finding]:
    """All findings, as they come."""
    yield from installation.versions()
    try:
        settings = load()
    except ConfigurationError as exc:
        yield problem("settings", str(exc))
        return
    yield ok("settings", "read without complaint")
    yield from installation.keys(settings)
    yield from installation.services(settings)
    encoder, found = installation.encoder(settings)
    yield found
    connection: Connection | None = None

    def connect() -> Iterator[Finding]:
        nonlocal connection
        connection, found = kafka.connect(settings)
        yield found

    yield from guarded("kafka", connect)
    if connection is not None:
        reached = connection
        yield from guarded("kafka", lambda: _kafka(settings, reached, encoder))
    yield from guarded("postgresql", lambda: _database(settings, connection))


def _kafka(settings: Settings, connection: Connection, encoder: str | None) -> Iterator[Finding]:
    all_names, admin = names(settings), connection.admin()
    listed = admin.list_topics(timeout=TIMEOUT_S).topics
    existing = {topic: len(found.partitions) for topic, found in listed.items()}
    yield from guarded("topics", lambda: kafka.topics(settings, existing, admin))
    catalogue = Catalogue()

    def models() -> Iterator[Finding]:
        nonlocal catalogue
        catalogue = read_catalogue(connection, all_names)
        yield from kafka.models(settings, existing, catalogue)

    if all_names.models in existing:
        yield from guarded("models", models)
        yield from guarded("services", lambda: kafka.services(settings, admin, catalogue))
    if all_names.policy in existing:
        yield from guarded(
            "policy", lambda: kafka.policy(settings, connection, catalogue, encoder, utc_now())
        )


def _database(settings: Settings, connection: Connection | None) -> Iterator[Finding]:
    engine, found = database.connect(settings)
    yield found
    if engine is None:
        return
    try:
        yield from guarded("postgresql", lambda: database.usable(engine))
        yield from guarded("schema", lambda: database.schema(settings))
        yield from guarded("sums", lambda: database.sums(engine))
        if connection is not None:
            yield from guarded("learner", lambda: database.lag(connection, names(settings), engine))
    finally:
        engine.dispose()
