"""`metallm topics`: create the topics, or see whether those that exist will do."""

from __future__ import annotations

import click

from metallm_stream.cli.cluster import cluster
from metallm_stream.kafka import check, create
from metallm_stream.serve.surroundings import names
from metallm_stream.settings import Settings, load


def create_topics(settings: Settings) -> list[str]:
    """Create what is missing for the configured providers; returns the new topics' names."""
    return create(
        cluster(settings).admin(),
        names(settings),
        settings.providers,
        partitions=settings.topics.partitions,
        replication_factor=settings.topics.replication_factor,
        min_insync_replicas=settings.topics.min_insync_replicas,
    )


@click.group()
def topics() -> None:
    """Create or check the topics."""


@topics.command("create")
def create_command() -> None:
    """Create the topics that are missing, for the configured providers."""
    made = create_topics(load())
    click.echo("\n".join(f"created {topic}" for topic in made) or "all topics exist")


@topics.command("check")
def check_command() -> None:
    """Tell whether the topics can keep the guarantees."""
    settings = load()
    admin = cluster(settings).admin()
    check(admin, names(settings), settings.providers)
    click.echo("the topics will do")
