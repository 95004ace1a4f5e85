"""Arms whose cost nobody tells.

Invariant: an arm that has not answered yet, of a host that may tell, is not found fault with.
"""

from __future__ import annotations

from collections.abc import Iterator

from metallm_stream.cli.doctor.finding import Finding, warning
from metallm_stream.cli.listed import listed_entry, may_report_cost
from metallm_stream.errors import counted
from metallm_stream.events import Model, PolicyArm
from metallm_stream.settings import Settings


def unknown_cost(settings: Settings, model: Model, learned: PolicyArm | None) -> Iterator[Finding]:
    """Whether neither price nor answers tell what the arm costs; `learned` is of the policy."""
    provider, name = model.provider, model.model
    answers = 0.0 if learned is None else learned.calls * (1 - (learned.failure_rate or 0.0))
    if learned is not None and learned.cost_usd is not None:
        return
    if answers >= 1:
        why = f"its {counted(answers, 'answer')} told no cost"
    elif may_report_cost(settings, provider) or listed_entry(settings, provider, name):
        return
    else:
        why = f"answers of {provider} tell no cost"
    if model.price is None:
        yield warning(
            "costs",
            f"{model.arm}: no price, and {why}: limits, budgets and savings do not see it",
            f"metallm models reprice {model.arm} --input-usd ... --output-usd ...: 0 if it is free",
        )
    elif answers >= 1:
        yield warning(
            "costs",
            f"{model.arm}: {why}, nor the tokens that its price is for",
            f"metallm models reprice {model.arm} --input-usd 0 --output-usd 0 --call-usd ...",
        )
