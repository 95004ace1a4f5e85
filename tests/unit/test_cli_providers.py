"""How `metallm providers check` shows what it found."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.console import Console

from metallm_stream.cli.providers import _announced, _table
from metallm_stream.events import Attempt, Model
from metallm_stream.providers.rate_headers import Quota, RateLimits
from metallm_stream.serve.probe import Probe

MODEL = Model(arm="mine", provider="here", model="m")


def test_what_is_left_of_the_vendors_limits_is_shown() -> None:
    """Requests and tokens, where the headers tell; what is unknown stays empty."""
    tried = Attempt(arm="mine", started_at=datetime(2026, 1, 1, tzinfo=UTC), latency_s=0.5)
    limits = RateLimits(requests=Quota(60, 59, 1), tokens=Quota(90_000, 89_950, 1))
    console = Console(file=io.StringIO(), width=120)
    console.print(_table([Probe(MODEL, tried, limits)]))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "59 of 60 requests" in shown
    assert "89950 of 90000 tokens" in shown
    assert "0.50 s" in shown
    assert "$" not in shown


def test_a_cost_that_nobody_knows_is_told_by_name() -> None:
    """It is never taken for nothing."""
    assert _announced([MODEL]) == (
        "1 call, 30 s at most: at most $0.000000, and what is not known of mine"
    )
