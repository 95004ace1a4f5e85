"""A decision for people: every candidate, what was expected of it, and which was chosen.

Invariant: what the policy did not know is shown as unknown, never as 0.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.markup import escape
from rich.table import Table

from metallm_stream.events import Candidate, Decision


def decision_table(decision: Decision, *, answered_by: str | None) -> Table:
    """A decision's candidates."""
    title = decided_by(
        decision.policy,
        decision.policy_version,
        decision.cost_weight,
        decision.latency_weight,
        decision.budget_weight or 0.0,
    )
    return candidates_table(title, decision.candidates, decision.arm, answered_by)


def candidates_table(
    title: str, candidates: Iterable[Candidate], chosen: str | None, answered_by: str | None
) -> Table:
    """The candidates, the likeliest first, with the chosen one and who answered marked."""
    table = Table(box=box.SIMPLE_HEAD, title=escape(title), title_justify="left")
    table.add_column("arm", overflow="fold")
    for column in ("probability", "quality", "cost $", "latency s", "utility"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for candidate in sorted(candidates, key=lambda item: -item.probability):
        table.add_row(
            escape(candidate.arm),
            *_cells(candidate),
            _mark(candidate.arm, chosen, answered_by),
            style="bold" if candidate.arm == chosen else None,
        )
    return table


def decided_by(
    policy: str,
    version: int,
    cost_weight: float,
    latency_weight: float,
    budget_weight: float = 0.0,
) -> str:
    """Which policy decided, with which trade-off.

    >>> decided_by("ridge-elimination", 0, 0.1, 0.0)
    'decided by ridge-elimination, no learned policy yet, cost weight 0.1'
    >>> decided_by("ridge-elimination", 7, 0.1, 0.0, 2.5)
    'decided by ridge-elimination, policy version 7, cost weight 0.1 + 2.5 by budgets'
    """
    learned = f"policy version {version}" if version else "no learned policy yet"
    latency = f", latency weight {latency_weight:g}" if latency_weight else ""
    budgets = f" + {budget_weight:.3g} by budgets" if budget_weight else ""
    return f"decided by {policy}, {learned}, cost weight {cost_weight:g}{budgets}{latency}"


def _cells(candidate: Candidate) -> tuple[str, ...]:
    return (
        f"{candidate.probability:.3f}",
        _number(candidate.quality, ".3f"),
        _number(candidate.cost_usd, ".6f"),
        _number(candidate.latency_s, ".2f"),
        _number(candidate.utility, ".3f"),
    )


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def _mark(arm: str, chosen: str | None, answered_by: str | None) -> str:
    if arm == chosen:
        return "chosen" if answered_by in (arm, None) else "chosen, failed"
    return "answered" if arm == answered_by else ""
