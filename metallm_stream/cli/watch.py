"""`metallm watch`: what the arms do, what it brings and costs, as PostgreSQL has it.

Invariant: reading never takes more than half of the time, however many interactions there are.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import click
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine, text

from metallm_stream.cli.database import database
from metallm_stream.cli.output import output
from metallm_stream.errors import counted
from metallm_stream.postgres import snapshot
from metallm_stream.settings import load

REFRESH_S = 1.0
WINDOW_S = 60

# A query's day is that of its first record, which may be feedback of the day before.
RECENT = "day >= (now() AT TIME ZONE 'UTC')::date - 1"
ARMS = text(
    f"""
    SELECT a.arm, a.in_catalogue, a.decisions, a.share, a.labelled, a.mean_quality,
           a.mean_cost_usd, a.failures, a.cost_usd, coalesce(r.decisions, 0) AS recent
    FROM metallm.arms AS a LEFT JOIN (
        SELECT arm, sum(decided) AS decisions FROM metallm.arm_events
        WHERE {RECENT} AND at > now() - make_interval(secs => :window_s) AND decided > 0
        GROUP BY arm
    ) AS r ON r.arm = a.arm
    ORDER BY a.decisions DESC, a.arm
    """  # noqa: S608 - a constant
)
HEAD = text(
    f"""
    SELECT (
               SELECT count(*) FROM metallm.interactions
               WHERE {RECENT} AND decided_at > now() - make_interval(secs => :window_s)
           ) AS recent,
           (SELECT sum(lag) FROM metallm.lag) AS lag,
           (SELECT min(age_s) FROM metallm.lag) AS lag_age_s,
           (SELECT coalesce(sum(records), 0) FROM metallm.dead_letter_counts) AS dead_letters,
           (SELECT max(version) FROM metallm.policy_now) AS version,
           (SELECT max(age_s) FROM metallm.policy_now) AS policy_age_s,
           d.arm AS drift_arm, d.direction AS drift_direction,
           extract(epoch FROM now() - d.detected_at)::double precision AS drift_age_s
    FROM (SELECT) AS one LEFT JOIN LATERAL (SELECT * FROM metallm.drift LIMIT 1) AS d ON true
    """  # noqa: S608 - a constant
)


@dataclass(frozen=True)
class Snapshot:
    """What one reading found."""

    head: Mapping[str, Any]
    arms: Sequence[Mapping[str, Any]]


@click.command()
@click.option("--once", is_flag=True, help="Print one table and exit.")
def watch(once: bool) -> None:
    """Show arms, shares, quality, spend and lag, anew every second, until Ctrl-C.

    It reads PostgreSQL alone, and as the learner has brought it up to date. Where the output is
    no terminal, one table is printed.
    """
    console = output()
    with database(load(), "watch") as engine:
        if once or not console.is_terminal:
            console.print(render(read(engine)))
            return
        with suppress(KeyboardInterrupt):
            follow(engine, console)


def follow(engine: Engine, console: Console) -> None:
    """Show one reading after the other, for ever."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            began = time.monotonic()
            live.update(render(read(engine)), refresh=True)
            time.sleep(max(REFRESH_S, time.monotonic() - began))


def read(engine: Engine) -> Snapshot:
    """One consistent reading."""
    with snapshot(engine) as conn:
        window = {"window_s": WINDOW_S}
        head = conn.execute(HEAD, window).mappings().one()
        return Snapshot(dict(head), [dict(row) for row in conn.execute(ARMS, window).mappings()])


def render(found: Snapshot) -> Group:
    """The lines above and the table of arms, in 80 columns; costs are a thousand calls'."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("arm", overflow="fold", min_width=12)
    for column in (
        "decisions",
        "last\nminute",
        "in\nall",
        "labelled",
        "quality",
        "$/1,000",
        "failures",
        "spend $",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    recent = sum(row["recent"] for row in found.arms)
    for row in found.arms:
        table.add_row(*_cells(row, recent), style=None if row["in_catalogue"] else "dim")
    lines: list[RenderableType] = [Text(_head(found.head)), table]
    if not found.arms:
        lines.append(Text(_no_arms(found.head)))
    return Group(*lines)


def _no_arms(head: Mapping[str, Any]) -> str:
    if head["lag_age_s"] is None:
        return "No learner has run yet, which would tell of models; `metallm models list` does"
    return "No model: `metallm models add`"


def _cells(row: Mapping[str, Any], recent: int) -> tuple[str, ...]:
    name = escape(row["arm"])
    return (
        name if row["in_catalogue"] else f"{name} (removed)",
        f"{row['decisions']:,}",
        f"{row['recent'] / recent:.1%}" if recent else "–",
        f"{row['share']:.1%}",
        f"{row['labelled']:,}",
        _number(row["mean_quality"], ".3f"),
        "–" if row["mean_cost_usd"] is None else f"{1000 * row['mean_cost_usd']:.4g}",
        f"{row['failures']:,}",
        _number(row["cost_usd"], ",.4f"),
    )


def _head(head: Mapping[str, Any]) -> str:
    policy = "no policy yet"
    if head["version"] is not None:
        policy = f"policy {head['version']}, {_age(head['policy_age_s'])} old"
    lag = "nothing learned yet"
    if head["lag"] is not None:
        lag = f"lag {counted(head['lag'], 'record')}, {_age(head['lag_age_s'])} ago"
    rate = f"{head['recent'] / WINDOW_S:.1f} queries/s in the last minute"
    lines = f"{rate} · {policy}\n{lag} · dead letters {head['dead_letters']:,}"
    if head["drift_arm"] is None:
        return lines
    age = _age(head["drift_age_s"])
    return f"{lines}\nquality of {head['drift_arm']} moved {head['drift_direction']} {age} ago"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _age(seconds: float) -> str:
    """A duration as people say it.

    >>> _age(0.4), _age(90), _age(10_000), _age(200_000)
    ('0 s', '90 s', '2.8 h', '2.3 d')
    """
    for unit, length_s in (("d", 86_400), ("h", 3_600)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{seconds:.0f} s"
