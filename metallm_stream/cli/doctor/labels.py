"""Arms whose answers nobody judges.

Invariant: where no arm is judged, or labels are merely late, nothing is found fault with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from metallm_stream.cli.doctor.finding import Finding, warning
from metallm_stream.errors import counted
from metallm_stream.events import PolicyArm
from metallm_stream.policy.patience import LABELS_AN_ARM

CALLS = 1_000.0


def unjudged(arms: Iterable[PolicyArm]) -> Iterator[Finding]:
    """Which arms have many calls and hardly a label, while others' calls have brought labels."""
    parts = list(arms)
    labels, calls = sum(part.observations for part in parts), sum(part.calls for part in parts)
    for part in parts:
        due = labels / calls * part.calls if calls else 0.0
        if part.calls >= CALLS and part.observations < LABELS_AN_ARM <= due:
            yield warning(
                "labels",
                f"{part.arm}: {part.calls:,.0f} calls and {counted(part.observations, 'label')}, "
                f"where {due:,.0f} would be usual: it gets ever fewer queries",
                "publish feedback on some of its answers, or remove it from the catalogue",
            )
