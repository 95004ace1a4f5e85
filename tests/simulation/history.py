"""Histories: drawn from a seed, lived through, and cut down to the steps that break a promise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.simulation.core import Core, Violation
from tests.simulation.dice import LARGEST
from tests.simulation.oracle import settle
from tests.simulation.world import ACTIONS, World

MOST_STEPS = 60
Step = tuple[str, int]


def drawn(seed: int) -> list[Step]:
    """The history of a seed."""
    rng = np.random.default_rng((seed, 1))
    count = int(rng.integers(1, MOST_STEPS))
    actions = rng.integers(len(ACTIONS), size=count).tolist()
    numbers = rng.integers(LARGEST, size=count).tolist()
    return [(ACTIONS[action], number) for action, number in zip(actions, numbers, strict=True)]


def lived(seed: int, steps: Sequence[Step], core: Core | None = None) -> str | None:
    """The promise that a history breaks, if it breaks one."""
    return _told(seed, steps, core)[1]


def cut_down(steps: list[Step], fails: Callable[[list[Step]], bool]) -> list[Step]:
    """Fewer steps that still fail, none of which can be left out."""
    size = len(steps) // 2
    while size:
        start = 0
        while start < len(steps):
            shorter = steps[:start] + steps[start + size :]
            if fails(shorter):
                steps = shorter
            else:
                start += size
        size = min(size // 2, len(steps))
    return steps


def told(seed: int, steps: list[Step], core: Core | None = None) -> str:
    """The shortest failing history of these steps, as text, and what it breaks."""
    least = cut_down(steps, lambda fewer: lived(seed, fewer, core) is not None)
    lines, broken = _told(seed, least, core)
    head = f"seed {seed}, {len(least)} of {len(steps)} steps, then all work is done:"
    return "\n".join([head, *lines, f"broken: {broken}"])


def _told(seed: int, steps: Sequence[Step], core: Core | None) -> tuple[list[str], str | None]:
    world, lines = World(seed, core), []
    try:
        for place, (action, number) in enumerate(steps):
            lines.append(f"  {place + 1:3d}  {action:9s} ")
            lines[-1] += world.take(action, number)
        settle(world)
    except Violation as exc:
        return lines, str(exc)
    return lines, None
