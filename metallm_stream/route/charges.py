"""What a query charges to its budgets, from its decision and its result.

Invariant: a call whose cost nobody tells counts as what it was expected to cost, never as nothing;
so does one with a failed try that may have been billed. Where no cost was expected of an arm, each
such try counts as what it costs at most, as far as a price is known.
"""

from __future__ import annotations

from metallm_stream.events import Attempt, Decision, Result
from metallm_stream.route.account import Charge

# A request may have been answered, and billed, although no answer came of it.
_MAYBE_BILLED = {"timeout", "deadline", "superseded", "malformed_answer", "connection"}


def charge_of(decision: Decision | None, result: Result | None) -> Charge | None:
    """The charge of a query as far as it is known; None before it is decided.

    A refusal is charged nothing, and counts as a query.
    """
    if decision is None:
        return None
    expected_usd = _expected_usd(decision)
    if result is None:
        known = [c.arm for c in decision.candidates if c.cost_usd is not None]
        untold_arm = None if decision.arm in known else decision.arm
        return Charge(decision.decided_at, expected_usd, untold_arm=untold_arm)
    expected_of = {c.arm for c in decision.candidates if c.cost_usd}
    at_most = [
        0.0 if attempt.arm in expected_of else attempt.at_most_usd or 0.0
        for attempt in result.attempts
        if _is_untold(attempt)
    ]
    untold_usd = sum(at_most) + (0.0 if all(at_most) else expected_usd)
    return Charge(decision.decided_at, expected_usd, result.cost_usd + untold_usd)


def _is_untold(attempt: Attempt) -> bool:
    """Whether a try may have been billed, at a cost that nobody tells.

    A vendor that tells the tokens of a failure, as of a refusal, bills it.
    """
    failure, tokens = attempt.failure, attempt.input_tokens
    is_billed = failure is None or failure.kind in _MAYBE_BILLED or bool(tokens)
    return attempt.cost_usd is None and is_billed


def _expected_usd(decision: Decision) -> float:
    """What was reserved; of a decision without budgets, what its arm was expected to cost."""
    if decision.reserved_usd is not None:
        return decision.reserved_usd
    expected = [c.cost_usd for c in decision.candidates if c.arm == decision.arm]
    return (expected[0] if expected else None) or 0.0
