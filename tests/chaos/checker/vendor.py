"""The vendor was asked for every answer, for nobody else, and how often more than needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from metallm_stream.providers import idempotency_key
from tests.chaos.checker.history import History, Violation

# Failures that say that the vendor has answered.
_ANSWERS = {"rate_limited", "server_error", "bad_request", "refused", "malformed_answer"}


def calls_reach_the_vendor(history: History) -> Iterator[Violation]:
    """Every try that was answered stands in the vendor's book, which has nobody else's."""
    booked = _booked(history)
    for item in history.of("results"):
        result = item.value or {}
        for arm, tries in _answered(result).items():
            found = booked[idempotency_key(result["call_id"], arm)]
            if found < tries:
                said = f"{tries} tries at {arm} were answered, {found} are in the vendor's book"
                yield Violation("call", said, item.query_id)
    known = {
        idempotency_key(call["call_id"], model["arm"])
        for call in (item.value or {} for item in history.of("calls"))
        for model in call.get("ranking", ())
    }
    for key in sorted(booked.keys() - known):
        yield Violation("stray call", f"the vendor was asked with a key of nobody's: {key}")


def extra_calls(history: History) -> int:
    """How often the vendor was asked beyond the tries that results tell of."""
    told: Counter[str] = Counter()
    for result in (item.value or {} for item in history.of("results")):
        for attempt in result.get("attempts", ()):
            told[idempotency_key(result["call_id"], attempt["arm"])] += 1
    return sum(max(0, number - told[key]) for key, number in _booked(history).items())


def _answered(result: Mapping[str, Any]) -> Counter[str]:
    return Counter(
        attempt["arm"]
        for attempt in result.get("attempts", ())
        if "failure" not in attempt or attempt["failure"]["kind"] in _ANSWERS
    )


def _booked(history: History) -> Counter[str]:
    return Counter(line["idempotency_key"] for line in history.ledger)
