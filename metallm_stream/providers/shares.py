"""A worker's share of a provider's rate limits: what the settings say, and what headers taught.

Invariant: a call that was let through was counted in every bucket that concerns it, and after a
vendor's Retry-After no call of that arm leaves before its time.
"""

from __future__ import annotations

from dataclasses import dataclass

from metallm_stream.providers.base import Answer, ProviderFailure
from metallm_stream.providers.bucket import Bucket
from metallm_stream.providers.rate_headers import Quota, RateLimits


@dataclass(slots=True)
class _Arm:
    requests: Bucket | None = None
    tokens: Bucket | None = None
    closed_until_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Share:
    """What one call has taken: tokens as estimated, and how much its arm had taken by then."""

    arm: str
    tokens: float
    requests_taken: float
    tokens_taken: float


class Shares:
    """The buckets of one provider and of each of its arms.

    Parameters
    ----------
    requests_per_minute, tokens_per_minute
        What this worker may use of the provider; None is no limit.
    """

    def __init__(
        self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        self._requests = Bucket.a_minute(requests_per_minute) if requests_per_minute else None
        self._tokens = Bucket.a_minute(tokens_per_minute) if tokens_per_minute else None
        self._arms: dict[str, _Arm] = {}

    def wait_s(self, arm: str, tokens: float, now_s: float) -> float:
        """Seconds until a call of so many tokens may leave."""
        known = self._arms.setdefault(arm, _Arm())
        waits_s = [known.closed_until_s - now_s, 0.0]
        waits_s += [bucket.wait_s(amount, now_s) for bucket, amount in self._all(known, tokens)]
        return max(waits_s)

    def take(self, arm: str, tokens: float, now_s: float) -> Share:
        """Count a call that leaves after `wait_s`."""
        known = self._arms.setdefault(arm, _Arm())
        for bucket, amount in self._all(known, tokens):
            bucket.take(amount, now_s)
        return Share(
            arm,
            tokens,
            known.requests.taken if known.requests else 0.0,
            known.tokens.taken if known.tokens else 0.0,
        )

    def settle(self, share: Share, ended: Answer | ProviderFailure, now_s: float) -> None:
        """Learn from how a call ended: tokens, headers, Retry-After."""
        known = self._arms[share.arm]
        billed = ended if isinstance(ended, Answer) else ended.billed
        if billed is not None and billed.input_tokens is not None:
            used = billed.input_tokens + (billed.output_tokens or 0)
            for bucket in (self._tokens, known.tokens):
                if bucket:
                    bucket.settle(used - share.tokens)
        if isinstance(ended, ProviderFailure) and ended.kind == "rate_limited":
            closed_until_s = now_s + (ended.retry_after_s or 0.0)
            known.closed_until_s = max(known.closed_until_s, closed_until_s)
        if ended.limits is not None:
            self._learn(known, share, ended.limits, now_s)

    def _learn(self, known: _Arm, share: Share, limits: RateLimits, now_s: float) -> None:
        known.requests = _taught(known.requests, limits.requests, share.requests_taken, now_s)
        known.tokens = _taught(known.tokens, limits.tokens, share.tokens_taken, now_s)

    def _all(self, known: _Arm, tokens: float) -> list[tuple[Bucket, float]]:
        requests = [(bucket, 1.0) for bucket in (self._requests, known.requests) if bucket]
        return requests + [(b, tokens) for b in (self._tokens, known.tokens) if b]


def _taught(
    bucket: Bucket | None, quota: Quota | None, taken: float, now_s: float
) -> Bucket | None:
    if quota is None:
        return bucket
    bucket = bucket or Bucket.a_minute(quota.limit)
    bucket.learn(quota, taken, now_s)
    return bucket
