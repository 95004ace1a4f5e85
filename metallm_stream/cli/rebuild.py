"""`metallm rebuild`: whether the live model equals what the records say."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import click
from sqlalchemy import Engine

from metallm_stream.cli.cluster import cluster
from metallm_stream.cli.database import database
from metallm_stream.encode import load_encoder
from metallm_stream.errors import ConfigurationError, counted
from metallm_stream.join import Rewards
from metallm_stream.policy import is_river
from metallm_stream.serve.rebuild import rebuild as rebuild_stored
from metallm_stream.serve.rebuild import rebuild_from_log
from metallm_stream.serve.surroundings import names
from metallm_stream.settings import Settings, load

if TYPE_CHECKING:
    from metallm_stream.serve.river_rebuild import RebuiltRiver

TOLERANCE = 1e-9


@click.command()
@click.option("--from-log", is_flag=True, help="Fold the topics instead of the stored rows.")
@click.option(
    "--apply",
    is_flag=True,
    help="Teach a policy of River's its lessons anew, with what was corrected since.",
)
def rebuild(from_log: bool, apply: bool) -> None:
    """Recompute the model and print its largest difference from the live one.

    Exits with 1 when the relative difference is above 1e-9. Nothing is changed without --apply,
    which fences the learner; start it again if nothing does.
    """
    settings = load()
    if apply and (from_log or not is_river(settings.router.policy)):
        raise ConfigurationError(
            "--apply replays the stored lessons of a policy of River's, without --from-log, and "
            f"METALLM_ROUTER__POLICY is {settings.router.policy}; sums are corrected at once"
        )
    encoder = load_encoder(settings.encoder)
    identity = (encoder.name, encoder.dimensions)
    with database(settings, "rebuild") as engine:
        if from_log:
            rebuilt = rebuild_from_log(engine, cluster(settings), names(settings), *identity)
        else:
            rebuilt = rebuild_stored(engine, *identity)
        difference = rebuilt.max_relative_difference
        arms = counted(len(rebuilt.sums.arms), "arm")
        click.echo(
            f"{counted(rebuilt.interactions, 'interaction')}, {arms}, largest relative "
            f"difference {difference:.3g}"
        )
        if is_river(settings.router.policy):
            river = _river(engine, settings, identity, from_log=from_log, apply=apply)
            click.echo(
                f"{settings.router.policy}: {counted(river.lessons, 'lesson')}, "
                f"{river.corrections} of them corrected since "
                f"{'and now applied' if apply else 'and not applied'}, largest relative "
                f"difference {river.difference:.3g}"
            )
            difference = max(difference, 0.0 if apply else river.difference)
    if difference > TOLERANCE:
        sys.exit(1)


def _river(
    engine: Engine, settings: Settings, identity: tuple[str, int], *, from_log: bool, apply: bool
) -> RebuiltRiver:
    """Rebuild the policy of River's, which is loaded for this alone."""
    module = importlib.import_module("metallm_stream.serve.river_rebuild")
    policy = importlib.import_module("metallm_stream.serve.river").policy_of(settings)
    found: RebuiltRiver
    if from_log:
        where = (cluster(settings), names(settings))
        rewards = Rewards(**settings.objective.model_dump())
        found = module.rebuild_river_from_log(engine, *where, policy, rewards, *identity)
    elif apply:
        found = module.apply_corrections(engine, policy, *identity)
    else:
        found = module.rebuild_river(engine, policy, *identity)
    return found
