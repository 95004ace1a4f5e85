"""From an HTTP status and a vendor's words to a kind of failure.

Invariant: what can only fail again (credentials, the request itself, a prompt that is too long,
a refusal) is never marked retriable, so that nothing is paid for twice in vain.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from metallm_stream.events import FailureKind

_TOO_LONG = re.compile(
    r"context_length|context length|context window|context limit|maximum context"
    r"|too many (input )?tokens|input token count( \(\d+\))? exceeds"
    r"|maximum prompt length|range of input length"
    r"|(prompt|input|request) (is )?too (long|large)"
    r"|max_tokens_exceeded|token_limit|token limit|expected maxlength"
)
_FILTERED = re.compile(
    r"content_filter|content filter|content_policy|content management policy"
    r"|responsibleaipolicy|moderation|flagged|usage polic"
)
_UNSUPPORTED = re.compile(
    r"unsupported|n[o']t support|model_not_found|does not exist|no longer available|unknown model"
    r"|invalid model name|model identifier is invalid|not a valid model|model not exist"
    # A longer answer was allowed than the model can give, or a shorter one than it needs to think.
    r"|max_(completion_)?tokens[`']? (is too large|must be less than or equal)"
    r"|max_tokens: \d+ > \d+|maximum tokens you requested exceeds|range of max_tokens"
    r"|maxtokencount: \d+ is not less|output limit was reached"
)
# One request alone is beyond what the account may use in a minute: no wait helps.
_OVER_A_MINUTE = re.compile(r"request too large for .* tokens per ")
# Of the account, although some vendors call it a bad request. It is all that they say then: further
# on a message may quote the prompt, which must shut nobody out.
_SHUT_OUT = re.compile(
    r"^\S* (error code: \d+ - )?(your credit balance is too low"
    r"|you have reached your specified (workspace )?api usage limits"
    r"|api key (not valid|not found|expired)|(incorrect|invalid) api key)"
)
_OUT_OF_MONEY = re.compile(
    r"insufficient_quota|servicequotaexceeded|(?<!/)billing|insufficient (credit|balance|fund)"
    r"|used all available credits|tokens per day"
)
# Rate limits that speak of billing too: by an address, or with the wait until they free.
_FREES_SOON = re.compile(r"(try again|retry) in \d")

# The first that fits counts, before the status alone does.
_BY_WORDS: tuple[tuple[set[int], re.Pattern[str], FailureKind], ...] = (
    ({400, 403, 422}, _FILTERED, "refused"),
    ({400, 422}, _TOO_LONG, "context_too_long"),
    ({400, 422}, _SHUT_OUT, "authentication"),
    ({400, 422}, _UNSUPPORTED, "unsupported"),
    ({413, 429}, _OVER_A_MINUTE, "unsupported"),
)
_BY_STATUS: dict[int, tuple[FailureKind, bool]] = {
    401: ("authentication", False),
    402: ("authentication", False),  # no credit left: as final as a wrong key
    403: ("authentication", False),
    404: ("unsupported", False),
    407: ("authentication", False),
    408: ("timeout", True),
    409: ("server_error", True),
    410: ("unsupported", False),
    413: ("context_too_long", False),
    424: ("server_error", True),  # the model behind the host failed
    429: ("rate_limited", True),
    501: ("server_error", False),
    505: ("server_error", False),
}
_BY_HUNDRED: dict[int, tuple[FailureKind, bool]] = {
    3: ("connection", False),
    4: ("bad_request", False),
    5: ("server_error", True),
}


def classify(
    status: int, *, code: str | None = None, message: str = ""
) -> tuple[FailureKind, bool]:
    """The kind of failure and whether the same arm may be tried again.

    >>> classify(429)
    ('rate_limited', True)
    >>> classify(429, code="insufficient_quota")
    ('rate_limited', False)
    >>> classify(400, message="This model's maximum context length is 8192 tokens.")
    ('context_too_long', False)
    >>> classify(400, message="This model doesn't support system messages.")
    ('unsupported', False)
    """
    said = f"{code or ''} {message}".lower()
    for statuses, words, kind in _BY_WORDS:
        if status in statuses and words.search(said):
            return kind, False
    if status == 429 and _OUT_OF_MONEY.search(said) and not _FREES_SOON.search(said):
        return "rate_limited", False
    unknown: tuple[FailureKind, bool] = ("malformed_answer", True)
    return _BY_STATUS.get(status) or _BY_HUNDRED.get(status // 100, unknown)


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """The wait that `retry-after-ms` or `Retry-After` ask for, in seconds; `None` without one.

    Both forms of `Retry-After` are read, seconds and date; what cannot be read is no wish.

    >>> retry_after_s({"retry-after": "2"}, datetime(2026, 1, 1, tzinfo=UTC))
    2.0

    References
    ----------
    RFC 9110, section 10.2.3.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _number(headers.get(name))
        if seconds is not None:
            return max(0.0, seconds * unit_s)
    return _until(headers.get("retry-after"), now)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _until(text: str | None, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())
