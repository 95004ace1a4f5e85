"""`metallm rebuild`: whether the live model equals what the records say."""

from __future__ import annotations

import sys

import click

from metallm_stream.encode import load_encoder
from metallm_stream.postgres import open_engine
from metallm_stream.serve.rebuild import rebuild as rebuild_stored
from metallm_stream.serve.rebuild import rebuild_from_log
from metallm_stream.serve.surroundings import connection, names
from metallm_stream.settings import load

TOLERANCE = 1e-9


@click.command()
@click.option("--from-log", is_flag=True, help="Fold the topics instead of the stored rows.")
def rebuild(from_log: bool) -> None:
    """Recompute the model and print its largest difference from the live one.

    Exits with 1 when the relative difference is above 1e-9.
    """
    settings = load()
    engine = open_engine(settings.database(), application_name="metallm-rebuild")
    encoder = load_encoder(settings.encoder)
    if from_log:
        kafka = connection(settings, "metallm-rebuild")
        rebuilt = rebuild_from_log(engine, kafka, names(settings), encoder.name, encoder.dimensions)
    else:
        rebuilt = rebuild_stored(engine, encoder.name, encoder.dimensions)
    difference = rebuilt.max_relative_difference
    click.echo(
        f"{rebuilt.interactions} interactions, {len(rebuilt.sums.arms)} arms, largest relative "
        f"difference {difference:.3g}"
    )
    if difference > TOLERANCE:
        sys.exit(1)
