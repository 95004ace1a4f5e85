"""Moments as options take them: a date, a time, or how long ago.

Invariant: a time without a zone is UTC, as everywhere in this project.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Moment(click.ParamType[datetime]):
    """An ISO date or time, or a duration before now such as `90m`, `12h`, `7d` or `2w`."""

    name = "date or duration"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """The moment, aware; fails with both ways of writing one."""
        if isinstance(value, datetime):
            return value
        try:
            return moment(value, datetime.now(UTC))
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no moment; write a date such as 2026-03-01, a time such as "
                "2026-03-01T12:00:00Z, or how long ago: 90m, 12h, 7d, 2w",
                param,
                ctx,
            )


def moment(said: str, now: datetime) -> datetime:
    """What was said as an aware time; `ValueError` for what says none.

    >>> moment("2d", datetime(2026, 3, 3, tzinfo=UTC)).isoformat()
    '2026-03-01T00:00:00+00:00'
    """
    ago = re.fullmatch(r"(\d+)([mhdw])", said)
    if ago:
        return now - timedelta(**{UNITS[ago[2]]: int(ago[1])})
    told = datetime.fromisoformat(said)
    return told if told.tzinfo else told.replace(tzinfo=UTC)
