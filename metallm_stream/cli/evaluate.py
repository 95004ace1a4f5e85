"""`metallm evaluate`: what other policies would have brought, from the stored log alone.

Invariant: an interval that cannot be trusted is never printed without saying so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from metallm_stream.cli.database import database
from metallm_stream.cli.moments import Moment
from metallm_stream.cli.numbers import finite
from metallm_stream.cli.output import output
from metallm_stream.errors import ConfigurationError
from metallm_stream.evaluate import ALWAYS, METRICS, TARGETS, LogEvaluation, PolicyValue
from metallm_stream.evaluate.off_policy import ALL
from metallm_stream.postgres.outcomes import median_cost_scale_usd, stream_outcomes
from metallm_stream.settings import load

COST_SCALES = (1e-12, 1e12)  # USD


def _policy(_context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value in (ALL, *TARGETS) or (value.startswith(ALWAYS) and value != ALWAYS):
        return value
    known = ", ".join((ALL, *TARGETS))
    raise click.BadParameter(f"{value!r} is none of {known} and {ALWAYS}ARM", param=parameter)


def _task(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        raise click.BadParameter(
            f"{value!a} has a NUL or is not UTF-8, which no task is: write it in UTF-8",
            param=parameter,
        )
    return value


@click.command()
@click.option(
    "--policy",
    default=ALL,
    show_default=True,
    callback=_policy,
    help="always:ARM, greedy, uniform, logged (the one that ran), or all of them.",
)
@click.option("--since", type=Moment(), help="Decisions from this date on, or from 7d ago on.")
@click.option("--until", type=Moment(), help="Decisions before this date, or before 1d ago.")
@click.option("--task", callback=_task, help="Queries of this task alone.")
@click.option(
    "--metric",
    type=click.Choice(list(METRICS)),
    default="utility",
    show_default=True,
    help="Quality, cost in USD and latency in seconds a query; utility weighs them.",
)
@click.option(
    "--cost-scale-usd",
    type=click.FloatRange(*COST_SCALES),
    callback=finite,
    help="The cost that counts as 1 in utilities; the decisions' median one if left out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def evaluate(
    policy: str,
    since: datetime | None,
    until: datetime | None,
    task: str | None,
    metric: str,
    cost_scale_usd: float | None,
    as_json: bool,
) -> None:
    """Estimate what other policies would have brought, from stored decisions and outcomes.

    Each estimate has a 95 % interval. ips, snips and dr need many effective decisions; dr_weighted
    also allows for a policy that never settled, dr_anytime for everything, at the price of width.
    """
    if since and until and since >= until:
        raise click.UsageError(f"--since ({since}) is not before --until ({until})")
    settings = load()
    evaluation, scale_s = LogEvaluation(metric, policy), settings.objective.latency_scale_s
    chosen: dict[str, Any] = {"since": since, "until": until, "task": task}
    with database(settings, "evaluate") as engine, engine.connect() as conn:
        scale_usd = cost_scale_usd or median_cost_scale_usd(conn, **chosen) or 1.0
        for decisions in stream_outcomes(
            conn, cost_scale_usd=scale_usd, latency_scale_s=scale_s, **chosen
        ):
            evaluation.add(decisions)
    _require_arm(policy, evaluation.arms, chosen)
    values = evaluation.values()
    if as_json:
        shown = {
            "metric": metric,
            "cost_scale_usd": scale_usd,
            "policies": [asdict(value) for value in values],
        }
        click.echo(json.dumps(shown, ensure_ascii=False, indent=2))
        return
    _print(metric, values)
    if metric == "utility":
        click.echo(f"utility counts {scale_usd:.4g} USD, and {scale_s:g} s, as 1")


def _require_arm(policy: str, arms: Sequence[str], chosen: Mapping[str, object]) -> None:
    """Refuse a log that says nothing at all, and an arm that it does not know."""
    if not arms:
        options = ", ".join(f"--{name}" for name, value in chosen.items() if value is not None)
        within = f" within {options}: widen that" if options else ": ask something first"
        raise ConfigurationError(
            f"no stored decision has its result{within}, or see the view metallm.lag for how far "
            "the learner is behind"
        )
    if policy.startswith(ALWAYS) and policy.removeprefix(ALWAYS) not in arms:
        raise ConfigurationError(
            f"--policy {policy}: that arm was never allowed; these were: {', '.join(arms)}"
        )


def _print(metric: str, values: Sequence[PolicyValue]) -> None:
    console = output()
    table = Table(title=f"{metric} a query, 95 % intervals", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("policy", overflow="fold")
    for column in ("value", "low", "high", "decisions", "effective"):
        table.add_column(column, justify="right", no_wrap=True)
    for value in values:
        counts = (f"{value.decisions:,}", f"{value.effective_decisions:,.0f}")
        table.add_row(f"[bold]{escape(value.target)}", "", "", "", *counts)
        for estimate in value.estimates:
            cells = [_number(cell) for cell in (estimate.value, estimate.low, estimate.high)]
            table.add_row(f"  {estimate.estimator}", *cells)
    console.print(table)
    for note in _notes(values):
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def _notes(values: Sequence[PolicyValue]) -> list[str]:
    """What to know before believing the figures: each note once, after the policies it is about."""
    about: dict[str, list[str]] = {}
    for value in values:
        missing: dict[str, list[str]] = {}
        for one in value.estimates if value.decisions else ():
            if one.note:
                missing.setdefault(one.note, []).append(one.estimator)
        of_some = [f"{', '.join(names)}: {note}" for note, names in missing.items()]
        for note in (*value.notes, *of_some):
            about.setdefault(note, []).append(value.target)
    return [f"{', '.join(targets)}: {note}" for note, targets in about.items()]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
