"""`metallm warmup`: logged outcomes as prior knowledge of a running service.

Invariant: a name stands for one file; adding it again replaces it, and removing it leaves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich import box
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Connection, Engine, text

from metallm_stream.cli.database import database
from metallm_stream.cli.numbers import finite
from metallm_stream.cli.output import output
from metallm_stream.encode import load_encoder
from metallm_stream.errors import counted
from metallm_stream.evaluate import LoggedQuery, prior, prior_weight, read_logged
from metallm_stream.evaluate.warm_start import DEFAULT_LIMIT, DEFAULT_WEIGHT
from metallm_stream.postgres import (
    Warmup,
    check_revision,
    claim_encoder,
    load_forgetting,
    load_warmups,
    remove_warmup,
    save_warmup,
)
from metallm_stream.serve.surroundings import utc_now
from metallm_stream.settings import Settings, load

LONGEST_NAME = 128
CATALOGUE = text("SELECT arm FROM metallm.models ORDER BY arm")


@click.command()
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False
)
@click.option(
    "--weight",
    type=click.FloatRange(0, 1, min_open=True),
    callback=finite,
    default=DEFAULT_WEIGHT,
    show_default=True,
    help="What a logged outcome counts, of a live label's 1.",
)
@click.option(
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    callback=finite,
    default=DEFAULT_LIMIT,
    show_default=True,
    help="Live labels that an arm's outcomes count together, at most.",
)
@click.option("--name", help="What it is known by; default: the file's name without its endings.")
@click.option("--list", "is_list", is_flag=True, help="Show what was added, and exit.")
@click.option("--remove", metavar="NAME", help="Take away what was added under NAME, and exit.")
def warmup(
    file: Path | None,
    weight: float,
    limit: float,
    name: str | None,
    is_list: bool,
    remove: str | None,
) -> None:
    """Add the logged outcomes in FILE to what the model believes before it has learned.

    FILE holds JSON lines as for `metallm replay`, plain or gzip'd: {"query_id", "text",
    "outcomes": {arm: {"quality", "cost"}}}; a line may have the outcomes of some arms only, and
    arms that are not in the catalogue are named. Adding under a name that is known replaces it.
    Learners publish the change within a second.
    """
    if (file is not None) + is_list + (remove is not None) != 1:
        raise click.UsageError("give one of FILE, --list and --remove")
    settings = load()
    check_revision(settings.database())
    with database(settings, "warmup") as engine:
        if is_list:
            _print(engine)
        elif remove is not None:
            _remove(engine, remove)
        elif file is not None:
            _add(
                engine,
                settings,
                file,
                (weight, limit),
                file.name.split(".")[0] if name is None else name,
            )


def _add(
    engine: Engine, settings: Settings, file: Path, amount: tuple[float, float], name: str
) -> None:
    if not 0 < len(name) <= LONGEST_NAME or "\x00" in name:
        raise click.BadParameter(
            f"must have 1 to {LONGEST_NAME} characters and no NUL", param_hint="--name"
        )
    logged = read_logged(file)
    weight = prior_weight(logged, *amount)
    encoder = load_encoder(settings.encoder)
    contexts = encoder.encode([line.text for line in logged])
    arms = {arm for line in logged for arm in line.outcomes}
    with engine.begin() as conn:
        claim_encoder(conn, encoder.name, encoder.dimensions)
        forgetting, now = load_forgetting(conn), utc_now()
        clocks = {arm: forgetting.log2_weight(arm, now) for arm in arms}
        sums = prior(logged, contexts, weight, clocks)
        save_warmup(conn, name, sums, queries=len(logged), weight=weight)
        added = next(item for item in load_warmups(conn) if item.name == name)
        notes = [note for note in (_strangers(conn, arms), _unjudged(logged, arms)) if note]
    click.echo(
        f"added {name}: {counted(added.queries, 'query')}, each outcome counts {added.weight:.3g}"
    )
    click.echo(f"live labels that it stands for: {_counted(added)}")
    for note in notes:
        click.echo(note, err=True)


def _strangers(conn: Connection, arms: set[str]) -> str | None:
    """What to tell of arms that are not in the catalogue, as a learner last saw it."""
    known = conn.execute(CATALOGUE).scalars().all()
    if strangers := ", ".join(sorted(arms.difference(known))):
        return (
            f"note: not in the catalogue: {strangers} (there are: {', '.join(known) or 'none'}): "
            "what was added of them counts once models of these very names are"
        )
    return None


def _unjudged(logged: Sequence[LoggedQuery], arms: set[str]) -> str | None:
    """What to tell of arms that the file says nothing of but costs, if anything."""
    found = (line.outcomes.items() for line in logged)
    judged = {arm for items in found for arm, outcome in items if outcome.quality is not None}
    if unjudged := ", ".join(sorted(arms - judged)):
        return f"note: no outcome of {unjudged} has a quality: nothing but costs was added of them"
    return None


def _remove(engine: Engine, name: str) -> None:
    with engine.begin() as conn:
        if not remove_warmup(conn, name):
            known = ", ".join(item.name for item in load_warmups(conn)) or "nothing"
            raise click.BadParameter(
                f"nothing was added as {name!r}; there is {known}", param_hint="--remove"
            )
    click.echo(f"removed {name}")


def _print(engine: Engine) -> None:
    with engine.connect() as conn:
        found = load_warmups(conn)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for column in ("name", "added at", "queries", "weight", "live labels that it stands for"):
        table.add_column(column, overflow="fold")
    for item in found:
        added = f"{item.added_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(
            escape(item.name),
            added,
            f"{item.queries:,}",
            f"{item.weight:.3g}",
            escape(_counted(item)),
        )
    output().print(table if found else "nothing was added")


def _counted(item: Warmup) -> str:
    return ", ".join(f"{arm} {count:.3g}" for arm, count in sorted(item.observations.items()))
