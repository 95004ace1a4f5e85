"""`metallm topics`: create the topics, or see whether those that exist will do."""

from __future__ import annotations

from collections.abc import Iterable

import click

from metallm_stream.cli.cluster import cluster
from metallm_stream.cli.groups import Group
from metallm_stream.kafka import Connection, TopicNames, check, create
from metallm_stream.serve.surroundings import names
from metallm_stream.settings import Topics, load


def create_topics(
    kafka: Connection, topic_names: TopicNames, wanted: Topics, providers: Iterable[str]
) -> list[str]:
    """Create what is missing for these providers; returns the new topics' names."""
    return create(
        kafka.admin(),
        topic_names,
        providers,
        partitions=wanted.partitions,
        replication_factor=wanted.replication_factor,
        min_insync_replicas=wanted.min_insync_replicas,
    )


@click.group(cls=Group)
def topics() -> None:
    """Create or check the topics."""


@topics.command("create")
def create_command() -> None:
    """Create the topics that are missing, for the configured providers."""
    settings = load()
    made = create_topics(cluster(settings), names(settings), settings.topics, settings.providers)
    click.echo("\n".join(f"created {topic}" for topic in made) or "all topics exist")


@topics.command("check")
def check_command() -> None:
    """Tell whether the topics can keep the guarantees."""
    settings = load()
    admin = cluster(settings).admin()
    check(admin, names(settings), settings.providers)
    click.echo("the topics will do")
