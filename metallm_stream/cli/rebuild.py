"""`metallm rebuild`: whether the live model equals what the records say."""

from __future__ import annotations

import sys

import click

from metallm_stream.cli.cluster import cluster
from metallm_stream.cli.database import database
from metallm_stream.encode import load_encoder
from metallm_stream.serve.rebuild import rebuild as rebuild_stored
from metallm_stream.serve.rebuild import rebuild_from_log
from metallm_stream.serve.surroundings import names
from metallm_stream.settings import load

TOLERANCE = 1e-9


@click.command()
@click.option("--from-log", is_flag=True, help="Fold the topics instead of the stored rows.")
def rebuild(from_log: bool) -> None:
    """Recompute the model and print its largest difference from the live one.

    Exits with 1 when the relative difference is above 1e-9.
    """
    settings = load()
    encoder = load_encoder(settings.encoder)
    identity = (encoder.name, encoder.dimensions)
    with database(settings, "rebuild") as engine:
        if from_log:
            rebuilt = rebuild_from_log(engine, cluster(settings), names(settings), *identity)
        else:
            rebuilt = rebuild_stored(engine, *identity)
    difference = rebuilt.max_relative_difference
    click.echo(
        f"{rebuilt.interactions} interactions, {len(rebuilt.sums.arms)} arms, largest relative "
        f"difference {difference:.3g}"
    )
    if difference > TOLERANCE:
        sys.exit(1)
