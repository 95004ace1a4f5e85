"""What a run prints: progress while it goes on, then tables, and questions that SQL answers.

Invariant: only shown, never decided here; without a terminal, progress comes as plain lines.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.table import Column, Table
from rich.text import Text
from sqlalchemy import Engine
from sqlalchemy import text as sql_text

from metallm_stream.cli.demo.drive import Seen
from metallm_stream.cli.demo.figures import Stream
from metallm_stream.cli.demo.report import Run, savings
from metallm_stream.evaluate import Value

PLAIN_EVERY_S = 5.0

NAMES = {
    "dearest": "the dearest arm",
    "best_fixed": "the best fixed arm",
    "uniform": "uniform random",
    "oracle": "oracle, knows it all",
}
QUESTIONS = {
    "Which model gets what, and how good is it?": (
        "SELECT split_part(arm, '/', 2) AS arm, decisions,\n"
        "       round(100 * share) AS percent, labelled,\n"
        "       round(mean_quality::numeric, 3) AS quality,\n"
        "       round(1000 * mean_cost_usd::numeric, 3) AS usd_1000\n"
        "FROM metallm.arms"
    ),
    "Which policy is in force, and what has it learned?": (
        "SELECT version, split_part(arm, '/', 2) AS arm, arm_observations AS labels,\n"
        "       round(arm_mean_quality::numeric, 3) AS quality,\n"
        "       round(arm_weights_norm::numeric, 3) AS norm,\n"
        "       round(log_evidence::numeric, 1) AS log_evidence\n"
        "FROM metallm.policy_now"
    ),
    "What was saved, against each model alone?": (
        "SELECT split_part(arm, '/', 2) AS arm,\n"
        "       round(always_usd::numeric, 2) AS always_usd,\n"
        "       round(spent_usd::numeric, 2) AS spent_usd,\n"
        "       round(always_quality_reweighted::numeric, 3) AS always_quality,\n"
        "       round(mean_quality::numeric, 3) AS our_quality\n"
        "FROM metallm.savings"
    ),
    "Why did the last query go where it went?": (
        "SELECT split_part(arm, '/', 2) AS arm,\n"
        "       round(probability::numeric, 4) AS probability,\n"
        "       round(quality::numeric, 3) AS quality,\n"
        "       round(cost_usd::numeric, 6) AS cost_usd,\n"
        "       round(utility::numeric, 3) AS utility, chosen\n"
        "FROM metallm.explain('{query_id}')"
    ),
}


class StreamBars:
    """Queries, results and labels as bars, and the current shares below them."""

    def __init__(self, console: Console, queries: int, labels: int) -> None:
        self._console = console
        self._told_s = time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._asked = self._bars.add_task("queries sent", total=queries)
        self._answered = self._bars.add_task("results", total=queries)
        self._labels = self._bars.add_task("labels learned", total=labels)
        self._live = Live(self._bars, console=console, refresh_per_second=5)

    def show(self, seen: Seen) -> None:
        """Show how far the stream is."""
        shares = sorted(seen.shares.items())
        said = f"policy {seen.learned.policy_version}: " + ", ".join(
            f"{arm.split('/')[-1]} {share:.0%}" for arm, share in shares
        )
        if self._console.is_terminal:
            self._bars.update(self._asked, completed=seen.asked)
            self._bars.update(self._answered, completed=seen.answered)
            self._bars.update(self._labels, completed=seen.learned.labelled)
            self._live.update(Group(self._bars, Text(said, style="dim")))
        elif time.monotonic() - self._told_s >= PLAIN_EVERY_S:
            self._told_s = time.monotonic()
            self._console.print(
                f"  {seen.seconds:3.0f} s: {seen.asked} queries sent, {seen.answered} results, "
                f"{seen.learned.labelled} labels learned; {said}",
                highlight=False,
                soft_wrap=True,
            )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


def show_run(console: Console, run: Run) -> None:
    """Counts, values and savings."""
    console.print()
    console.print(_counts(run))
    console.print()
    console.print(_values(run.stream, run.settings))
    console.print()
    console.print(f"Spent ${run.stream.cost_usd.sum():,.2f} in all:", highlight=False)
    for name, saving in savings(run.stream).items():
        compared = "less" if saving.saved_fraction >= 0 else "more"
        console.print(
            f"  [bold]{abs(saving.saved_fraction):.1%} {compared}[/] than {saving.arm} alone "
            f"(${saving.alone_usd:,.2f}), {NAMES[name]}",
            highlight=False,
        )


def show_sql(console: Console, engine: Engine, query_id: str) -> None:
    """A few questions, their SQL and the answers."""
    with engine.connect() as conn:
        for question, sql in QUESTIONS.items():
            statement = sql.format(query_id=query_id)
            found = conn.execute(sql_text(statement))
            table = _table(*found.keys())
            for row in found:
                table.add_row(*map(str, row))
            console.print(f"\n[bold]{question}[/]")
            console.print(Syntax(statement, "sql", background_color="default"))
            console.print(table)


def _table(*columns: str) -> Table:
    whole = (Column(column, overflow="fold") for column in columns)
    return Table(*whole, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


def _counts(run: Run) -> Table:
    counts = run.counts
    table = _table()
    table.add_column("Exactly once? Counted from the outside")
    table.add_column("", justify="right")
    for name, number in {
        f"queries asked ({counts.asked_again} of them twice)": counts.queries,
        "decisions": counts.decisions,
        f"results ({counts.failures} of them failures)": counts.results,
        "lost": counts.lost,
        "doubled": counts.doubled,
        f"queries judged (by {counts.feedback_records} feedback records)": counts.labels_given,
        "labels counted": counts.labels_counted,
        "records that the learner has not read": counts.unread,
        "dead letters": counts.dead_letters,
        "requests to the vendor (failed ones)": f"{run.ledger.requests} ({run.ledger.failed})",
        "paid twice after a repeated delivery": run.ledger.repeated,
        "spent": f"${counts.spend_usd:.4f}",
        "live model − rebuilt model, relative": f"{run.rebuild.largest:.1e}",
        "stream": f"{run.driven.stream_s:.1f} s",
    }.items():
        table.add_row(name, str(number))
    return table


def _values(stream: Stream, settings: Mapping[str, object]) -> Table:
    title = f"Utility = quality − {settings['cost_weight']} · cost / the dearest model's mean cost"
    table = _table()
    table.title, table.title_justify = title, "left"
    table.add_column("mean of a query", overflow="fold")
    for part in ("whole", "half 2"):
        for measure in ("utility", "quality", "$/1000"):
            table.add_column(f"{part}\n{measure}", justify="right", no_wrap=True)
    parts = list(stream.parts().values())
    table.add_row("the service", *_measures([stream.service(part) for part in parts]), style="bold")
    others = [stream.baselines(part) for part in parts]
    for name in others[0]:
        if name not in ("cheapest", "dearest"):  # each stands under its name as well
            shown = NAMES.get(name, name.removeprefix("fixed:").split("/")[-1])
            table.add_row(shown, *_measures([part[name] for part in others]))
    return table


def _measures(values: list[Value]) -> list[str]:
    return [
        shown
        for value in values
        for shown in (
            f"{value.utility:.4f}",
            f"{value.quality:.4f}",
            f"{1_000 * (value.cost_usd or 0):.2f}",
        )
    ]
