"""Where the demo plays: servers, topics and tables of its own, and the processes on them.

Invariant: it touches nothing that was there before. On embedded servers it has a state directory
of its own; on given ones a fresh topic prefix and database, which are removed at the end.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import Engine, text

from metallm_stream.cli.demo.recording import Recording
from metallm_stream.cli.demo.services import PROVIDER, Services
from metallm_stream.cli.topics import create_topics
from metallm_stream.embedded import EmbeddedStack, Listener, StateDirectory, remove_state
from metallm_stream.events import Model
from metallm_stream.kafka import Connection, Record, TopicNames, write
from metallm_stream.postgres import database_url, open_engine
from metallm_stream.postgres.migrate import migrate
from metallm_stream.settings import KAFKA_PASSED_THROUGH, Settings

COST_WEIGHT = 0.1
NAME = "metallm-demo"
DELETE_WITHIN_S = 30.0


@dataclass(frozen=True)
class Stage:
    """Everything a demo plays on."""

    kafka: Connection
    names: TopicNames
    engine: Engine
    services: Services
    encoder: str
    is_embedded: bool


@contextmanager
def stage(settings: Settings, state_dir: Path, seed: int, listener: Listener) -> Iterator[Stage]:
    """Bring up what is missing, with topics and tables; take it all down at the end."""
    _wipe(state_dir)
    given_database = settings.database_url.get_secret_value() if settings.database_url else None
    with ExitStack() as opened:
        database = opened.enter_context(_fresh_database(given_database))
        servers = EmbeddedStack(
            state_dir,
            bootstrap_servers=settings.kafka_bootstrap_servers,
            database_url=database,
            listener=listener,
        )
        opened.enter_context(servers)
        migrate(servers.database_url)
        names, kafka = _topics(settings, servers, opened)
        engine = open_engine(SecretStr(servers.database_url), application_name=NAME)
        opened.callback(engine.dispose)
        services = Services(servers, _environment(settings, servers, names), seed)
        opened.callback(services.stop)
        embedded = settings.kafka_bootstrap_servers is None and given_database is None
        yield Stage(kafka, names, engine, services, settings.encoder, embedded)


def add_models(stage: Stage, recording: Recording) -> None:
    """Put the recorded models into the catalogue, without a price: the vendor reports its own."""
    models = [Model(arm=arm, provider=PROVIDER, model=arm) for arm in recording.arms]
    records = [Record.of(stage.names.models, model.arm, model) for model in models]
    write(stage.kafka.producer(), records)


def _wipe(state_dir: Path) -> None:
    """Delete what an earlier demo left; raises `AlreadyRunning` while another one runs there."""
    with StateDirectory(state_dir):
        pass
    remove_state(state_dir)


def _topics(
    settings: Settings, servers: EmbeddedStack, opened: ExitStack
) -> tuple[TopicNames, Connection]:
    is_given = settings.kafka_bootstrap_servers is not None
    names = TopicNames(f"demo-{secrets.token_hex(4)}." if is_given else "")
    properties = settings.kafka_properties if is_given else {}
    kafka = Connection(servers.bootstrap_servers, properties, NAME)
    create_topics(kafka, names, settings.topics, (PROVIDER,))
    if is_given:
        opened.callback(_delete_topics, kafka, names)
    return names, kafka


def _delete_topics(kafka: Connection, names: TopicNames) -> None:
    admin = kafka.admin()  # held until the last answer is in
    for deleted in admin.delete_topics(names.all((PROVIDER,))).values():
        deleted.result(DELETE_WITHIN_S)


def _environment(settings: Settings, servers: EmbeddedStack, names: TopicNames) -> dict[str, str]:
    security = {
        name: value
        for name, value in os.environ.items()
        if settings.kafka_bootstrap_servers and name.startswith(KAFKA_PASSED_THROUGH)
    }
    return {
        **security,
        "KAFKA_BOOTSTRAP_SERVERS": servers.bootstrap_servers,
        "METALLM_TOPICS__PREFIX": names.prefix,
        "METALLM_ENCODER": settings.encoder,
        "METALLM_OBJECTIVE__COST_WEIGHT": str(COST_WEIGHT),
    }


@contextmanager
def _fresh_database(given: str | None) -> Iterator[str | None]:
    """A database of its own on the given server, dropped at the end; `None` where none is given."""
    if given is None:
        yield None
        return
    name = f"metallm_demo_{secrets.token_hex(4)}"
    engine = open_engine(given, application_name=NAME).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with ExitStack() as opened:
        opened.callback(engine.dispose)
        conn = opened.enter_context(engine.connect())
        conn.execute(text(f"CREATE DATABASE {name}"))
        opened.callback(conn.execute, text(f"DROP DATABASE {name} WITH (FORCE)"))
        yield database_url(given).set(database=name).render_as_string(hide_password=False)
