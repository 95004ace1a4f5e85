"""Numbers as options take them.

Invariant: what is not finite is refused, which click's own ranges let through.
"""

from __future__ import annotations

import math

import click

NOT_NEGATIVE = click.FloatRange(min=0)


def finite(
    _context: click.Context, parameter: click.Parameter, value: float | None
) -> float | None:
    """A callback that refuses NaN and infinities."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number", param=parameter)
    return value
