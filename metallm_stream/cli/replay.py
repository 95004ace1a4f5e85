"""`metallm replay`: logged outcomes through the policy, cold, without Kafka.

Invariant: the same file, options and seed give the same figures, except for the rate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from metallm_stream.cli.numbers import finite
from metallm_stream.cli.replay_report import Asked, show, show_weights
from metallm_stream.cli.replay_run import replayed
from metallm_stream.encode import DEFAULT_ENCODER
from metallm_stream.evaluate import Labels
from metallm_stream.events import MAX_WEIGHT
from metallm_stream.policy import CHOOSERS, DEFAULT_CHOOSER, is_river
from metallm_stream.policy.detectors import DEFAULT_DETECTOR, DETECTORS
from metallm_stream.settings import RouterSettings

FLOOR = RouterSettings().floor
COST_WEIGHT = 0.1
BUDGETED_DELAY = 25  # queries: calls of some seconds, ten queries a second


def _weights(
    _context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, ...]:
    try:
        weights = tuple(float(part) for part in value.split(",")) if value is not None else ()
    except ValueError as exc:
        raise click.BadParameter(f"{exc}; give numbers: 0,.1,1", param=parameter) from exc
    for weight in weights:
        if not 0 <= weight <= MAX_WEIGHT:
            raise click.BadParameter(
                f"{weight} is not in the range 0 to {MAX_WEIGHT:g}", param=parameter
            )
    return weights


def _parameters(
    _context: click.Context, parameter: click.Parameter, value: str | None
) -> dict[str, Any]:
    try:
        found = json.loads(value or "{}")
        json.dumps(found, allow_nan=False)
    except ValueError as exc:
        raise click.BadParameter(f"{value!r} is no JSON: {exc}", param=parameter) from exc
    if not isinstance(found, dict):
        raise click.BadParameter(
            f"{value!r} is no JSON object: give names and values", param=parameter
        )
    return found


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--cost-weight",
    type=click.FloatRange(0, MAX_WEIGHT),
    callback=finite,
    show_default=f"{COST_WEIGHT:g}",
    help="What the dearest arm's mean cost is worth, in quality.",
)
@click.option(
    "--cost-weights",
    callback=_weights,
    metavar="W,W,…",
    help="Several in one run: one row each, or an array of objects.",
)
@click.option(
    "--order",
    type=click.Choice(["shuffled", "file"]),
    default="shuffled",
    show_default=True,
    help="Shuffled is a stationary stream; the order of the file may drift.",
)
@click.option(
    "--shuffles",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many replays, with the seeds SEED, SEED+1, …; figures are their means.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Replay only the first queries of each shuffle."
)
@click.option(
    "--policy",
    default=DEFAULT_CHOOSER,
    show_default=True,
    help=f"{', '.join(name for name in CHOOSERS if name != 'fixed')}, fixed:<arm>, or one of "
    "River's as METALLM_ROUTER__POLICY names it: river:LinUCBDisjoint, or a class's path.",
)
@click.option(
    "--policy-parameters",
    callback=_parameters,
    metavar="JSON",
    help="What it is made with, as METALLM_ROUTER__POLICY_PARAMETERS has it.",
)
@click.option(
    "--floor",
    type=click.FloatRange(1e-4, 1),
    callback=finite,
    show_default=f"{FLOOR:g} with a policy of River's",
    help="Share of an even draw beside a policy of River's, as METALLM_ROUTER__FLOOR.",
)
@click.option(
    "--budget-usd-per-query",
    type=click.FloatRange(min=1e-12),
    callback=finite,
    help="What a query may cost in the mean: decides in turn, under a soft budget of the service.",
)
@click.option(
    "--cost-delay",
    type=click.IntRange(min=0),
    show_default=f"{BUDGETED_DELAY} under a budget, else 0",
    help="How many more queries are decided before a call's cost is known; its label comes no "
    "sooner.",
)
@click.option(
    "--label-fraction",
    type=click.FloatRange(0, 1),
    callback=finite,
    default=1.0,
    show_default=True,
    help="Share of the queries whose quality the policy ever learns.",
)
@click.option(
    "--label-delay",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="How many more queries are decided before a label arrives.",
)
@click.option(
    "--drift",
    type=click.Choice(["off", *DETECTORS]),
    show_default=f"{DEFAULT_DETECTOR}; off with a policy of River's",
    help="What watches each arm's quality for a shift, as in the service.",
)
@click.option(
    "--half-life",
    type=click.FloatRange(min=0, min_open=True),
    callback=finite,
    help="Labels after which a label counts half as much; default: as much as ever.",
)
@click.option("--encoder", default=DEFAULT_ENCODER, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def replay(
    file: Path,
    cost_weight: float | None,
    cost_weights: tuple[float, ...],
    label_fraction: float,
    label_delay: int,
    cost_delay: int | None,
    budget_usd_per_query: float | None,
    policy: str,
    policy_parameters: Mapping[str, Any],
    floor: float | None,
    drift: str | None,
    half_life: float | None,
    order: str,
    shuffles: int,
    seed: int,
    limit: int | None,
    encoder: str,
    as_json: bool,
) -> None:
    """Replay the logged outcomes in FILE through a policy that starts cold.

    FILE holds JSON lines, plain or gzip'd: {"query_id", "text", "outcomes": {arm: {"quality",
    "cost"}}}. The policy sees the outcome of the arm it chooses and of no other. Prints utility
    (quality − cost weight × cost ÷ dearest arm's mean cost), quality and cost beside those of
    every fixed arm, of chance and of hindsight, for the whole stream and its second half. Under a
    budget it also prints the share of it that was spent, of all queries and of the worst 500, and
    the best fixed arm whose mean cost is within it, which is the fair comparison.
    """
    if is_river(policy):
        _refuse_memory(policy, drift, half_life)
        drift, floor = "off", FLOOR if floor is None else floor
    elif floor is not None:
        raise click.BadParameter(
            f"it is for policies of River's, and {policy} has no such draw beside it: leave it out",
            param_hint="--floor",
        )
    budgeted = 0 if budget_usd_per_query is None else BUDGETED_DELAY
    asked = Asked(
        file=file,
        order=order,
        shuffles=shuffles,
        seed=seed,
        limit=limit,
        policy=policy,
        parameters=policy_parameters,
        floor=floor,
        labels=Labels(fraction=label_fraction, delay=label_delay),
        cost_delay=budgeted if cost_delay is None else cost_delay,
        budget_usd=budget_usd_per_query,
        drift=None if drift == "off" else drift or DEFAULT_DETECTOR,
        half_life=half_life,
        encoder=encoder,
    )
    if cost_weight is not None and cost_weights:
        raise click.BadParameter("give either one weight or several", param_hint="--cost-weights")
    single = COST_WEIGHT if cost_weight is None else cost_weight
    reports = replayed(asked, cost_weights or (single,))
    if as_json:
        found = [report.as_json() for report in reports]
        click.echo(json.dumps(found if cost_weights else found[0], ensure_ascii=False, indent=2))
    elif cost_weights:
        show_weights(reports)
    else:
        show(reports[0])


def _refuse_memory(policy: str, drift: str | None, half_life: float | None) -> None:
    """Raise `BadParameter` for what changes the memory of sums alone."""
    options = {"--drift": None if drift == "off" else drift, "--half-life": half_life}
    for option, value in options.items():
        if value is not None:
            raise click.BadParameter(
                f"{value} would change what sums remember, and {policy} is no policy of sums: "
                f"leave it out, or choose {DEFAULT_CHOOSER}",
                param_hint=option,
            )
