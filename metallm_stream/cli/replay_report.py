"""What `metallm replay` was asked, and what it shows of what came of it, as JSON and as tables.

Invariant: both show the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metallm_stream.cli.output import output
from metallm_stream.errors import counted
from metallm_stream.evaluate import WITHIN_BUDGET, Labels, Part, Spending, Utilities, Value
from metallm_stream.evaluate.spending import FIRST, WINDOW


@dataclass(frozen=True)
class Asked:
    """The options of one replay, cost weight apart; None: does not apply."""

    file: Path
    order: str
    shuffles: int
    seed: int
    limit: int | None
    policy: str
    parameters: Mapping[str, Any]
    floor: float | None
    labels: Labels
    cost_delay: int
    budget_usd: float | None
    drift: str | None
    half_life: float | None
    encoder: str


@dataclass(frozen=True)
class Report:
    """The figures of one replay under one cost weight."""

    asked: Asked
    stream: Utilities
    n: int
    whole: Part
    second_half: Part
    spending: Spending | None
    queries_per_s: float

    def as_json(self) -> dict[str, object]:
        """One object: what was asked, and what came of it."""
        asked, spending = self.asked, self.spending
        return {
            "policy": asked.policy,
            "policy_parameters": dict(asked.parameters),
            "floor": asked.floor,
            "cost_weight": self.stream.cost_weight,
            "seed": asked.seed,
            "order": asked.order,
            "shuffles": asked.shuffles,
            "label_fraction": asked.labels.fraction,
            "label_delay": asked.labels.delay,
            "cost_delay": asked.cost_delay,
            "budget_usd_per_query": asked.budget_usd,
            "drift": asked.drift,
            "half_life": asked.half_life,
            "encoder": asked.encoder,
            "n": self.n,
            "arms": list(self.stream.outcomes.arms),
            "cost_scale_usd": self.stream.cost_scale_usd,
            "all": self.whole.as_json(),
            "second_half": self.second_half.as_json(),
            "spending": None if spending is None else spending.as_json(),
            "queries_per_s": self.queries_per_s,
            "notes": list(self.stream.outcomes.notes),
        }


def show(report: Report) -> None:
    """Print the policy beside every baseline, and what else there is to say."""
    console = output()
    asked = report.asked
    queries = counted(report.n, "query")
    title = f"{asked.file.name}: {queries}, cost weight {report.stream.cost_weight:g}"
    table = _table(title, "policy")
    whole, half = report.whole, report.second_half
    table.add_row(f"[bold]{escape(asked.policy)}", *_cells(whole.policy), *_cells(half.policy))
    for name, value in whole.baselines.items():
        table.add_row(escape(name), *_cells(value), *_cells(half.baselines[name]))
    console.print(table)
    for name in ("best_fixed", *_within_budget(report), "cheapest", "dearest"):
        console.print(f"{name}: {escape(_arm_of(whole, name))}")
    shares = sorted(half.shares.items(), key=lambda item: -item[1])
    console.print(
        "shares, second half: " + ", ".join(f"{escape(arm)} {share:.1%}" for arm, share in shares)
    )
    if whole.standard_error is not None and half.standard_error is not None:
        console.print(
            f"means over {asked.shuffles} shuffles; standard error of the policy's utility "
            f"{whole.standard_error:.4f}, second half {half.standard_error:.4f}"
        )
    _show_rest(console, [report])


def show_weights(reports: Sequence[Report]) -> None:
    """Print the policy's figures, and the best fixed arm's, under each cost weight.

    Under a budget also those of the best fixed arm within it.
    """
    console = output()
    first = reports[0]
    table = _table(f"{first.asked.file.name}: {counted(first.n, 'query')}", "cost weight, policy")
    for report in reports:
        weight = f"{report.stream.cost_weight:g}"
        parts = report.whole, report.second_half
        own = [cell for part in parts for cell in _cells(part.policy)]
        table.add_row(f"[bold]{weight} {escape(report.asked.policy)}", *own)
        for name in ("best_fixed", *_within_budget(report)):
            if name in report.whole.baselines:
                fixed = [cell for part in parts for cell in _cells(part.baselines[name])]
                table.add_row(f"{weight} {name}", *fixed)
    console.print(table)
    _show_rest(console, reports)


def _within_budget(report: Report) -> tuple[str, ...]:
    """The baseline to compare with under a budget."""
    return () if report.asked.budget_usd is None else (WITHIN_BUDGET,)


def _arm_of(part: Part, name: str) -> str:
    if name not in part.baselines:
        return "none"
    return part.baselines[name].arm or "not the same throughout"


def _show_rest(console: Console, reports: Sequence[Report]) -> None:
    """How budgets were kept, notes and the rate."""
    for report in reports:
        if report.spending is not None and report.asked.budget_usd is not None:
            console.print(_spent(report.spending, report.asked.budget_usd, report.stream))
    for note in dict.fromkeys(note for each in reports for note in each.stream.outcomes.notes):
        console.print(f"note: {escape(note)}")
    slowest = min(report.queries_per_s for report in reports)
    console.print(f"{slowest:,.0f} queries/s after encoding")


def _spent(spending: Spending, budget_usd: float, stream: Utilities) -> str:
    few = f"none, of fewer than {FIRST + WINDOW} queries"
    worst = few if spending.worst_window is None else f"{spending.worst_window:.1%}"
    return (
        f"budget of {budget_usd:g} USD a query, cost weight {stream.cost_weight:g}: "
        f"{spending.share:.1%} spent; worst {WINDOW} queries after the first {FIRST}: {worst}"
    )


def _table(title: str, first: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column(first, overflow="fold")
    for part in ("whole", "2nd half"):
        for column in ("utility", "quality", "$/1,000"):
            table.add_column(f"{part}\n{column}", justify="right", no_wrap=True, min_width=8)
    return table


def _cells(value: Value) -> tuple[str, str, str]:
    cost = "unknown" if value.cost_usd is None else f"{1000 * value.cost_usd:.4g}"
    return f"{value.utility:.4f}", f"{value.quality:.4f}", cost
