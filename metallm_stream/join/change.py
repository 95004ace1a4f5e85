"""What an interaction adds to the sums, and so what a change of interactions changes in them.

Invariant: the model is the sum of the contributions of all interactions. A batch of changes adds
`contribution(after) − contribution(before)`, which makes duplicates free and corrections exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.encode import context_from_bytes
from metallm_stream.events import Attempt, Decision
from metallm_stream.join.interaction import Interaction
from metallm_stream.policy import Sums, usage_of_call


@dataclass(frozen=True, slots=True)
class Lesson:
    """One judged answer: quality in [0, 1] of `arm` in a context of raw float32 bytes."""

    arm: str
    context: bytes
    quality: float


def lesson(interaction: Interaction, encoder: str) -> Lesson | None:
    """What the interaction teaches about quality, or None.

    Failures teach nothing about quality: they are counted among the arm's usage. A decision that
    was made with another encoder teaches nothing, since its context means something else.
    """
    decision, result = interaction.decision, interaction.result
    if decision is None or result is None or result.arm is None or decision.encoder != encoder:
        return None
    value = interaction.judged().quality
    return None if value is None else Lesson(result.arm, decision.context, value)


def usage(attempts: Iterable[Attempt]) -> dict[str, NDArray[np.float64]]:
    """Calls, failures, cost, tokens and latency of the attempts, summed by arm."""
    totals: dict[str, NDArray[np.float64]] = {}
    for attempt in attempts:
        vector = usage_of_call(
            failed=attempt.failure is not None,
            cost_usd=attempt.cost_usd,
            input_tokens=attempt.input_tokens,
            output_tokens=attempt.output_tokens,
            latency_s=attempt.latency_s,
        )
        known = totals.get(attempt.arm)
        totals[attempt.arm] = vector if known is None else known + vector
    return totals


def change(
    pairs: Iterable[tuple[Interaction | None, Interaction | None]], encoder: str, dimensions: int
) -> Sums:
    """The change of the sums when each `before` becomes its `after`."""
    lessons: dict[str, list[tuple[Lesson, float]]] = defaultdict(list)
    sums = Sums(dimensions)
    for before, after in pairs:
        old = None if before is None else lesson(before, encoder)
        new = None if after is None else lesson(after, encoder)
        if old != new:
            for item, weight in ((old, -1.0), (new, 1.0)):
                if item is not None:
                    lessons[item.arm].append((item, weight))
        old_attempts = _attempts(before)
        new_attempts = _attempts(after)
        if old_attempts != new_attempts:
            for arm, vector in usage(old_attempts).items():
                sums.add_usage(arm, -vector)
            for arm, vector in usage(new_attempts).items():
                sums.add_usage(arm, vector)
    for arm, weighted in lessons.items():
        contexts = np.stack([context_from_bytes(item.context, dimensions) for item, _ in weighted])
        sums.add_quality(
            arm,
            contexts,
            np.array([item.quality for item, _ in weighted]),
            np.array([weight for _, weight in weighted]),
        )
    return sums


def check_context(decision: Decision, encoder: str, dimensions: int) -> None:
    """Raises `InvalidEvent` if a decision made with `encoder` has no valid context."""
    if decision.encoder == encoder:
        context_from_bytes(decision.context, dimensions)


def _attempts(interaction: Interaction | None) -> tuple[Attempt, ...]:
    if interaction is None or interaction.result is None:
        return ()
    return interaction.result.attempts
