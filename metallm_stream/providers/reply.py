"""What the readers of all wires share: bounded figures, ignored extras, malformed answers.

Invariant: a figure beyond reason makes the reply that holds it malformed; it is never booked.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metallm_stream.providers.base import Answer, ProviderFailure

Count = Annotated[int, Field(ge=0, le=10**9)]
PartT = TypeVar("PartT", bound="Part")

# Anthropic's reasons to stop, which Bedrock took over, where we have a word of our own.
FINISHED = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}
# Tiers of service that have prices of their own, by any vendor's word.
OFF_LIST = frozenset({"batch", "flex", "priority", "reserved"})


class Part(BaseModel):
    """Base of the parts of a reply: what we do not rely on is ignored."""

    model_config = ConfigDict(extra="ignore")


def read_part(
    part: type[PartT], body: bytes, *, content_type: str, request_id: str | None
) -> PartT:
    """The reply in a body; raises `ProviderFailure` (`malformed_answer`) if it is none."""
    try:
        return part.model_validate_json(body)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "body"
        kind = content_type or "no content type"
        raise malformed(
            f"the answer ({kind}) is unreadable at {where}: {first['msg']}", request_id
        ) from exc


def malformed(said: str, request_id: str | None, billed: Answer | None = None) -> ProviderFailure:
    """A reply that holds no usable answer, with what was charged for it."""
    return ProviderFailure(
        "malformed_answer", said, retriable=True, request_id=request_id, billed=billed
    )


def without_text(said: str, answer: Answer, billed: Answer | None) -> ProviderFailure:
    """A reply without text. If a limit cut it off, the model cannot do it within that limit."""
    said = f"the answer holds no text ({said})"
    if answer.finish_reason != "length":
        return malformed(said, answer.request_id, billed)
    return ProviderFailure(
        "unsupported", said, retriable=False, request_id=answer.request_id, billed=billed
    )


def declined(said: str, request_id: str | None, billed: Answer | None) -> ProviderFailure:
    """A refusal of the model or of a filter, with what was charged for it."""
    return ProviderFailure("refused", said, retriable=False, request_id=request_id, billed=billed)


def total(*counts: int | None) -> int | None:
    """The sum of the counts that are known; None if none is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
