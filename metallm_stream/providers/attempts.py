"""The book of one call: every try as it ended, and the result made of them.

Invariant: tokens and cost of a result are the sums over all attempts in it, failed and forwarded
ones included, and every text in it can be stored (no NUL, no lone surrogate, bounded length).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic_core import to_json

from metallm_stream.events import Attempt, Call, Failure, Model, Result, Skip
from metallm_stream.providers.base import Answer, ProviderFailure
from metallm_stream.providers.pricing import cost_usd

_BYTES_A_CHARACTER = 6  # in JSON, at most
_MESSAGE_CHARACTERS = 500
_REQUEST_ID_CHARACTERS = 200


def storable(text: str) -> str:
    """The text without what JSON or PostgreSQL cannot hold.

    >>> storable("a" + chr(0) + "b" + chr(0xD800))
    'ab?'
    """
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def attempt(
    model: Model,
    ended: Answer | ProviderFailure,
    *,
    started_at: datetime,
    latency_s: float,
    is_probe: bool = False,
) -> Attempt:
    """One try as it ended, with what was charged for it, answered or not."""
    if isinstance(ended, ProviderFailure):
        message = storable(ended.message)[:_MESSAGE_CHARACTERS]
        failure, billed = Failure(kind=ended.kind, message=message), ended.billed or Answer("")
        cost = None if ended.billed is None else cost_usd(model, billed, at=started_at)
    else:
        failure, billed = None, ended
        cost = cost_usd(model, billed, at=started_at)
    request_id = ended.request_id
    return Attempt(
        arm=model.arm,
        started_at=started_at,
        latency_s=latency_s,
        failure=failure,
        input_tokens=billed.input_tokens,
        output_tokens=billed.output_tokens,
        cached_input_tokens=billed.cached_input_tokens,
        cache_write_tokens=billed.cache_write_tokens,
        reasoning_tokens=billed.reasoning_tokens,
        cost_usd=cost,
        provider_request_id=request_id and storable(request_id)[:_REQUEST_ID_CHARACTERS],
        probe=is_probe or None,
    )


def finish(
    call: Call,
    attempts: Sequence[Attempt],
    *,
    skipped: Sequence[Skip] = (),
    finished_at: datetime,
    arm: str | None = None,
    text: str | None = None,
    prediction: str | None = None,
    failure: Failure | None = None,
) -> Result:
    """The result of a call: the answer of `arm`, or `failure`.

    `latency_s` runs from the start of the first attempt, here or before a forward, to the end.
    """
    began_at = min((one.started_at for one in attempts), default=finished_at)
    return Result(
        query_id=call.query.query_id,
        call_id=call.call_id,
        arm=arm,
        text=text,
        prediction=prediction,
        failure=failure,
        attempts=tuple(attempts),
        skipped=tuple(skipped),
        input_tokens=sum(one.input_tokens or 0 for one in attempts),
        output_tokens=sum(one.output_tokens or 0 for one in attempts),
        cost_usd=sum(one.cost_usd or 0.0 for one in attempts),
        latency_s=max(0.0, (finished_at - began_at).total_seconds()),
        finished_at=finished_at,
    )


def unless_too_long(answer: Answer, limit: int) -> Answer | ProviderFailure:
    """The answer, or a failure if its text takes more than `limit` bytes of JSON."""
    if len(answer.text) * _BYTES_A_CHARACTER + 2 <= limit:
        return answer
    size = len(to_json(storable(answer.text)))
    if size <= limit:
        return answer
    return ProviderFailure(
        "malformed_answer",
        f"the answer takes {size} bytes where a record holds {limit}: set max_output_tokens",
        retriable=False,
        request_id=answer.request_id,
        billed=answer,
    )
