"""What a vendor's headers say of its rate limits.

Invariant: what cannot be read counts as not said, and no quota takes longer than a day to reset.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

# Begun at each digit anew, a long header would take seconds.
_SPAN = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)(ms|[smhd]|$)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_LONGEST_RESET_S = 86_400.0
_OPENAI = {
    "requests": "x-ratelimit-{}-requests",
    "tokens": "x-ratelimit-{}-tokens",
}
_ANTHROPIC = {
    "requests": "anthropic-ratelimit-requests-{}",
    "tokens": "anthropic-ratelimit-tokens-{}",
}


@dataclass(frozen=True, slots=True)
class Quota:
    """How much of `limit` remains, and the seconds until all of it would again."""

    limit: float
    remaining: float
    reset_s: float


@dataclass(frozen=True, slots=True)
class RateLimits:
    """A vendor's quotas for an arm after a request; None where it did not say."""

    requests: Quota | None = None
    tokens: Quota | None = None


def read_limits(headers: Mapping[str, str], now: datetime) -> RateLimits | None:
    """The quotas in `x-ratelimit-*` or `anthropic-ratelimit-*` headers, if any.

    >>> read_limits(
    ...     {
    ...         "x-ratelimit-limit-requests": "60",
    ...         "x-ratelimit-remaining-requests": "59",
    ...         "x-ratelimit-reset-requests": "1s",
    ...     },
    ...     datetime(2026, 1, 1),
    ... )
    RateLimits(requests=Quota(limit=60.0, remaining=59.0, reset_s=1.0), tokens=None)
    """
    for names in (_OPENAI, _ANTHROPIC):
        quotas = {kind: _quota(headers, name, now) for kind, name in names.items()}
        if any(quota is not None for quota in quotas.values()):
            return RateLimits(**quotas)
    return None


def _quota(headers: Mapping[str, str], name: str, now: datetime) -> Quota | None:
    limit, remaining = _number(headers, name, "limit"), _number(headers, name, "remaining")
    if limit is None or limit < 1 or remaining is None:
        return None
    reset_s = _reset_s(headers.get(name.format("reset"), ""), now)
    if reset_s is None:
        return None
    return Quota(limit, min(remaining, limit), min(reset_s, _LONGEST_RESET_S))


def _number(headers: Mapping[str, str], name: str, part: str) -> float | None:
    try:
        number = float(headers.get(name.format(part), ""))
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _reset_s(text: str, now: datetime) -> float | None:
    """Seconds of `6m0s`, `20ms` or `1.5`, or until an ISO moment."""
    parts = _SPAN.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return max(0.0, (moment - now).total_seconds()) if moment.tzinfo is not None else None
