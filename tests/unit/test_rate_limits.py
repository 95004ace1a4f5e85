"""Shares of rate limits: what headers say, what they teach, and what waits for it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from metallm_stream.events import FailureKind
from metallm_stream.providers import Answer, ProviderFailure, Shares
from metallm_stream.providers.bucket import Bucket
from metallm_stream.providers.rate_headers import Quota, RateLimits, read_limits
from metallm_stream.providers.shares import LONGEST_S

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def headers(limit: str, remaining: str, reset: str) -> dict[str, str]:
    names = ("limit", "remaining", "reset")
    values = zip(names, (limit, remaining, reset), strict=True)
    return {f"x-ratelimit-{name}-requests": value for name, value in values}


@pytest.mark.parametrize(
    ("reset", "expected_s"),
    [
        *(("1s", 1.0), ("6m0s", 360.0), ("20ms", 0.02), ("1h2m3.5s", 3_723.5), ("1.5", 1.5)),
        *(("2026-03-01T12:00:30Z", 30.0), ("2026-03-01T11:00:00Z", 0.0)),
    ],
)
def test_times_are_read_in_every_form(reset: str, expected_s: float) -> None:
    """Spans as OpenAI writes them, and moments as Anthropic does."""
    limits = read_limits(headers("60", "59", reset), NOW)
    assert limits == RateLimits(requests=Quota(60, 59, pytest.approx(expected_s)))


def test_both_vendors_names_are_read() -> None:
    """Requests and tokens each."""
    moment = (NOW + timedelta(seconds=6)).isoformat()
    said = {
        f"anthropic-ratelimit-{kind}-{part}": value
        for kind, limit in (("requests", "50"), ("tokens", "8000"))
        for part, value in (("limit", limit), ("remaining", "10"), ("reset", moment))
    }
    assert read_limits(said, NOW) == RateLimits(Quota(50, 10, 6), Quota(8_000, 10, 6))


@pytest.mark.parametrize(
    "said",
    [
        {},
        headers("", "", ""),
        headers("many", "59", "1s"),
        headers("60", "nan", "1s"),
        headers("60", "-1", "1s"),
        headers("0", "0", "1s"),
        headers("1e-5", "0", "1s"),
        headers("inf", "0", "1s"),
        headers("60", "59", "soon"),
        headers("60", "59", "5 s"),
        headers("60", "59", "2026-03-01T12:00:30"),
    ],
)
def test_what_cannot_be_read_was_not_said(said: dict[str, str]) -> None:
    """Strange headers change nothing."""
    assert read_limits(said, NOW) is None


def test_a_long_header_holds_up_nobody() -> None:
    """Its digits are not read anew from each of them."""
    began_s = time.process_time()
    assert read_limits(headers("60", "59", "1" * 20_000 + "x"), NOW) is None
    assert time.process_time() - began_s < 1.0


def test_a_bucket_learns_what_the_vendor_has_counted() -> None:
    """And adds what was sent while the answer was under way."""
    bucket = Bucket.a_minute(6_000)
    for _ in range(3):
        bucket.take(1.0, 0.0)
    bucket.learn(Quota(limit=10, remaining=4, reset_s=12), taken_then=1.0, now_s=1.0)
    assert (bucket.level, bucket.capacity, bucket.rate_per_s) == (8.0, 10.0, 0.5)
    assert [bucket.take(1.0, 1.0) for _ in range(4)] == [0.0, 0.0, 2.0, 4.0]


@pytest.mark.parametrize(("taken_then", "level"), [(1.0, 7.0), (2.0, 7.0), (3.0, 6.0)])
def test_what_was_given_back_is_not_counted(taken_then: float, level: float) -> None:
    """Whether the vendor's word came with a request of before or after it."""
    bucket = Bucket.a_minute(6_000)
    for _ in range(3):
        bucket.take(1.0, 0.0)
    bucket.give_back(1.0, taken_then=2.0)
    bucket.learn(Quota(limit=10, remaining=4, reset_s=12), taken_then=taken_then, now_s=1.0)
    assert bucket.level == level


def test_the_settings_bound_requests_of_all_arms_together() -> None:
    """One request a second at 60 a minute."""
    shares = Shares(requests_per_minute=60)
    waits_s = []
    for arm in ("a", "b", "a"):
        waits_s.append(shares.wait_s(arm, 100, 0.0))
        shares.take(arm, 100, 0.0)
    assert waits_s == [0.0, 1.0, 2.0]


def test_tokens_are_settled_when_they_are_known() -> None:
    """An answer of fewer tokens than were expected gives the rest back."""
    shares = Shares(tokens_per_minute=600)
    taken = shares.take("a", 110, 0.0)
    assert shares.wait_s("a", 10, 0.0) == 11.0
    shares.settle(taken, Answer("4", input_tokens=50, output_tokens=10), 0.0)
    assert shares.wait_s("a", 10, 0.0) == 6.0


@pytest.mark.parametrize(
    ("kind", "wait_s"),
    [
        ("bad_request", 0.0),
        ("context_too_long", 0.0),
        ("authentication", 0.0),
        ("unsupported", 0.0),
        ("rate_limited", 0.0),
        ("timeout", 30.0),
    ],
)
def test_a_refused_try_gives_its_tokens_back(kind: FailureKind, wait_s: float) -> None:
    """It used none, of the settings' limit and of the vendor's."""
    shares = Shares(tokens_per_minute=600)
    limits = RateLimits(tokens=Quota(600, 600, 0))
    shares.settle(shares.take("a", 0, 0.0), Answer("4", limits=limits), 0.0)
    failed = ProviderFailure(kind, "by the test", retriable=False)
    shares.settle(shares.take("a", 300, 0.0), failed, 0.0)
    assert shares.wait_s("a", 600, 0.0) == wait_s


def test_a_query_takes_no_more_than_a_whole_limit() -> None:
    """However long an answer it allows: others wait a minute."""
    shares = Shares(tokens_per_minute=600)
    limits = RateLimits(tokens=Quota(900, 900, 0))
    shares.settle(shares.take("a", 0, 0.0), Answer("4", limits=limits), 0.0)
    taken = shares.take("a", 1_000_000, 0.0)
    assert shares.wait_s("a", 600, 0.0) == 60.0
    shares.settle(taken, Answer("4", input_tokens=10, output_tokens=10), 0.0)
    assert shares.wait_s("a", 600, 0.0) == 2.0


def test_headers_bound_the_arm_that_they_came_with() -> None:
    """Others are not concerned."""
    shares = Shares()
    taken = shares.take("a", 10, 0.0)
    limits = RateLimits(requests=Quota(2, 0, 10))
    shares.settle(taken, Answer("4", limits=limits), 0.0)
    assert shares.wait_s("a", 10, 0.0) == 5.0
    assert shares.wait_s("b", 10, 0.0) == 0.0
    assert shares.wait_s("a", 10, 5.0) == 0.0


def test_retry_after_holds_every_call_of_the_arm() -> None:
    """Not only the one that was told."""
    shares = Shares()
    told = ProviderFailure("rate_limited", "slow down", retriable=True, retry_after_s=3)
    shares.settle(shares.take("a", 10, 0.0), told, 1.0)
    assert shares.wait_s("a", 10, 2.0) == 2.0
    assert shares.wait_s("b", 10, 2.0) == 0.0


@pytest.mark.parametrize("reset", ["1772366460", "999999999d", "9" * 310, "9999-12-31T00:00:00Z"])
def test_no_quota_takes_longer_than_a_day(reset: str) -> None:
    """A moment where a span belongs, and numbers beyond all bounds, are not waited for."""
    limits = read_limits(headers("60", "0", reset), NOW)
    assert limits == RateLimits(requests=Quota(60, 0, 86_400))


@pytest.mark.parametrize(
    ("limit", "reset"),
    [("60", "9" * 310), ("60", "0s"), ("1e308", "1e-9"), ("1e308", "0.0000001s")],
)
def test_no_header_locks_an_arm(limit: str, reset: str) -> None:
    """One call leaves after five minutes, the next five minutes later, and what it hears counts."""
    shares, now_s = Shares(), 0.0
    said = read_limits(headers(limit, "0", reset), NOW)
    shares.settle(shares.take("a", 10, 0.0), Answer("4", limits=said), 0.0)
    for _ in range(5):
        wait_s = shares.wait_s("a", 10, now_s)
        assert 0 <= wait_s <= LONGEST_S
        taken, now_s = shares.take("a", 10, now_s), now_s + wait_s
    shares.settle(taken, Answer("4", limits=RateLimits(Quota(60, 59, 1))), now_s)
    assert shares.wait_s("a", 10, now_s) == 0.0


def test_after_a_long_wait_one_call_at_a_time_asks_anew() -> None:
    """The others go on waiting until it has ended."""
    shares = Shares()
    said = RateLimits(requests=Quota(2, 0, 86_400))
    shares.settle(shares.take("a", 10, 0.0), Answer("4", limits=said), 0.0)
    assert shares.wait_s("a", 10, LONGEST_S - 1) == 1.0
    shares.take("a", 10, LONGEST_S - 1)
    assert shares.wait_s("a", 10, LONGEST_S) == LONGEST_S


@pytest.mark.parametrize("retry_after_s", [3.2e7, 1e308])
def test_no_retry_after_holds_an_arm_for_long(retry_after_s: float) -> None:
    """Five minutes at most."""
    shares = Shares()
    told = ProviderFailure("rate_limited", "later", retriable=True, retry_after_s=retry_after_s)
    shares.settle(shares.take("a", 10, 0.0), told, 1.0)
    assert shares.wait_s("a", 10, 1.0) == LONGEST_S
    assert shares.wait_s("a", 10, 1.0 + LONGEST_S) == 0.0


def test_retry_after_holds_where_headers_were_heard_long_ago() -> None:
    """Their age is no reason to call before the time."""
    shares = Shares()
    told = ProviderFailure("rate_limited", "slow down", retriable=True, retry_after_s=3)
    shares.settle(shares.take("a", 10, 0.0), Answer("4", limits=RateLimits(Quota(60, 59, 1))), 0.0)
    late_s = 2 * LONGEST_S
    shares.settle(shares.take("a", 10, late_s), told, late_s)
    assert shares.wait_s("a", 10, late_s) == 3.0
