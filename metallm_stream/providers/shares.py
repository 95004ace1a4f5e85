"""A worker's share of a provider's rate limits: what the settings say, and what headers taught.

Invariant: a call that was let through was counted in every bucket that concerns it, and after a
vendor's Retry-After no call of that arm leaves before its time. But whatever a vendor says, one
call of the arm leaves `LONGEST_S` after it was said, and learns what holds by then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from metallm_stream.providers.base import Answer, ProviderFailure
from metallm_stream.providers.bucket import Bucket
from metallm_stream.providers.rate_headers import Quota, RateLimits

LONGEST_S = 300.0  # for so long a vendor's word on its limits is believed
# Failures of tries that used no tokens.
_UNUSED = {"bad_request", "context_too_long", "authentication", "unsupported", "rate_limited"}


@dataclass(slots=True)
class _Arm:
    requests: Bucket | None = None
    tokens: Bucket | None = None
    closed_until_s: float = 0.0
    believed_until_s: float = math.inf

    def wait_s(self, tokens: float, now_s: float) -> float:
        """Seconds that the vendor's word asks for."""
        waits_s = [self.closed_until_s - now_s, 0.0]
        waits_s += [bucket.wait_s(amount, now_s) for bucket, amount in self.buckets(tokens)]
        return max(waits_s)

    def buckets(self, tokens: float) -> list[tuple[Bucket, float]]:
        """The buckets of the arm, and what a call takes of each."""
        return _known((self.requests, 1.0), (self.tokens, self.at_most(tokens)))

    def at_most(self, tokens: float) -> float:
        """So many tokens, but no more than the vendor allows in a span."""
        return min(tokens, self.tokens.capacity) if self.tokens else tokens


@dataclass(frozen=True, slots=True)
class Share:
    """What one call has taken: tokens as estimated, of the provider's and of the arm's limit.

    And how much its arm had taken by then.
    """

    arm: str
    tokens: float
    arm_tokens: float
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
        self._most_tokens = tokens_per_minute or math.inf
        self._arms: dict[str, _Arm] = {}

    def wait_s(self, arm: str, tokens: float, now_s: float) -> float:
        """Seconds until a call of so many tokens may leave."""
        known = self._arms.setdefault(arm, _Arm())
        believed_s = max(0.0, known.believed_until_s - now_s)
        waits_s = [min(known.wait_s(tokens, now_s), believed_s)]
        waits_s += [bucket.wait_s(amount, now_s) for bucket, amount in self._own(tokens)]
        return max(waits_s)

    def take(self, arm: str, tokens: float, now_s: float) -> Share:
        """Count a call that leaves after `wait_s`."""
        known = self._arms.setdefault(arm, _Arm())
        believed_until_s = max(now_s, known.believed_until_s)
        if now_s + known.wait_s(tokens, now_s) > believed_until_s:
            known.believed_until_s = believed_until_s + LONGEST_S  # this call will tell
        for bucket, amount in self._own(tokens) + known.buckets(tokens):
            bucket.take(amount, now_s)
        return Share(
            arm,
            min(tokens, self._most_tokens),
            known.at_most(tokens),
            known.requests.taken if known.requests else 0.0,
            known.tokens.taken if known.tokens else 0.0,
        )

    def give_back(self, share: Share) -> None:
        """Count a call no more that did not leave."""
        known = self._arms[share.arm]
        for bucket, amount in self._own(share.tokens):
            bucket.settle(-amount)
        # An arm's bucket that came later has not counted it.
        if known.requests and share.requests_taken:
            known.requests.give_back(1.0, share.requests_taken)
        if known.tokens and share.tokens_taken:
            known.tokens.give_back(share.arm_tokens, share.tokens_taken)

    def settle(self, share: Share, ended: Answer | ProviderFailure, now_s: float) -> None:
        """Learn from how a call ended: tokens, headers, Retry-After."""
        known = self._arms[share.arm]
        used = _used_tokens(ended)
        if used is not None and self._tokens:
            self._tokens.settle(used - share.tokens)
        if used is not None and known.tokens and share.tokens_taken:
            known.tokens.settle(used - share.arm_tokens)
        if isinstance(ended, ProviderFailure) and ended.kind == "rate_limited":
            closed_until_s = now_s + min(ended.retry_after_s or 0.0, LONGEST_S)
            known.closed_until_s = max(known.closed_until_s, closed_until_s)
            known.believed_until_s = now_s + LONGEST_S
        if ended.limits is not None:
            self._learn(known, share, ended.limits, now_s)

    def _learn(self, known: _Arm, share: Share, limits: RateLimits, now_s: float) -> None:
        known.believed_until_s = now_s + LONGEST_S
        known.requests = _taught(known.requests, limits.requests, share.requests_taken, now_s)
        known.tokens = _taught(known.tokens, limits.tokens, share.tokens_taken, now_s)

    def _own(self, tokens: float) -> list[tuple[Bucket, float]]:
        return _known((self._requests, 1.0), (self._tokens, min(tokens, self._most_tokens)))


def _used_tokens(ended: Answer | ProviderFailure) -> float | None:
    billed = ended if isinstance(ended, Answer) else ended.billed
    if billed is not None and billed.input_tokens is not None:
        return billed.input_tokens + (billed.output_tokens or 0)
    is_unused = isinstance(ended, ProviderFailure) and ended.kind in _UNUSED
    return 0.0 if is_unused and billed is None else None


def _known(*pairs: tuple[Bucket | None, float]) -> list[tuple[Bucket, float]]:
    return [(bucket, amount) for bucket, amount in pairs if bucket]


def _taught(
    bucket: Bucket | None, quota: Quota | None, taken: float, now_s: float
) -> Bucket | None:
    if quota is None:
        return bucket
    bucket = bucket or Bucket.a_minute(quota.limit)
    bucket.learn(quota, taken, now_s)
    return bucket
