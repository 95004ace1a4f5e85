"""The policies that a log can be asked about.

Invariant: a target's probabilities come from what was logged before the outcome, and do not depend
on the order in which arms are listed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from metallm_stream.evaluate.bandit_log import Floats
from metallm_stream.evaluate.decisions import Decisions

ALWAYS = "always:"


def logged(decisions: Decisions) -> Floats:
    """The policy that made the log: `(n, K)`."""
    return decisions.probabilities


def greedy(decisions: Decisions) -> Floats:
    """The allowed arm of the highest logged utility, `(n, K)`; equal ones share.

    While no policy was learned no utility was logged, and all allowed arms share.
    """
    utility = np.where(decisions.allowed, decisions.expected["utility"], np.nan)
    worth = np.where(np.isnan(utility), -np.inf, utility)
    top = worth.max(axis=1, keepdims=True, initial=-np.inf)
    best = decisions.allowed & (worth == top)
    shares: Floats = best / np.maximum(best.sum(axis=1, keepdims=True), 1)
    return shares


def uniform(decisions: Decisions) -> Floats:
    """All allowed arms alike, `(n, K)`."""
    shares: Floats = decisions.allowed / np.maximum(decisions.allowed.sum(axis=1, keepdims=True), 1)
    return shares


def always(decisions: Decisions, arm: str) -> Floats:
    """One arm where it was allowed, `(n, K)`; rows without it are 0 throughout, and do not count.

    So its value is that over the queries that it may answer.
    """
    column = np.array([name == arm for name in decisions.arms], dtype=np.bool_)
    choices: Floats = (decisions.allowed & column).astype(np.float64)
    return choices


TARGETS: dict[str, Callable[[Decisions], Floats]] = {
    "logged": logged,
    "greedy": greedy,
    "uniform": uniform,
}


def probabilities(target: str, decisions: Decisions) -> Floats:
    """The target's probabilities, `(n, K)`; rows that do not count for it are 0 throughout.

    Raises `ValueError` for a target that there is not.
    """
    if target.startswith(ALWAYS):
        return always(decisions, target.removeprefix(ALWAYS))
    if target not in TARGETS:
        raise ValueError(f"no policy {target!r}: {', '.join(TARGETS)} or {ALWAYS}ARM")
    return TARGETS[target](decisions)


def all_targets(arms: Sequence[str]) -> list[str]:
    """Every target that there is with these arms.

    >>> all_targets(["b", "a"])
    ['logged', 'greedy', 'uniform', 'always:a', 'always:b']
    """
    return [*TARGETS, *(ALWAYS + arm for arm in sorted(arms))]
