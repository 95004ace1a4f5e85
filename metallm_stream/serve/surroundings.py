"""What every service and command takes from the settings: the cluster, its topics, the time.

Invariant: nothing here connects; clients connect when they are first used.
"""

from __future__ import annotations

from datetime import UTC, datetime

from metallm_stream.kafka import Connection, TopicNames
from metallm_stream.route import Budget
from metallm_stream.settings import Settings


def utc_now() -> datetime:
    """The time, aware UTC."""
    return datetime.now(UTC)


def connection(settings: Settings, client_id: str) -> Connection:
    """The Kafka connection that the settings describe."""
    return Connection(settings.bootstrap(), settings.kafka_properties, client_id)


def budgets(settings: Settings) -> list[Budget]:
    """The budgets in force."""
    return [Budget(name=name, **entry.model_dump()) for name, entry in settings.budgets.items()]


def names(settings: Settings) -> TopicNames:
    """The names of the topics under the configured prefix."""
    return TopicNames(settings.topics.prefix)
