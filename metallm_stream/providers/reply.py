"""What the readers of all wires share: bounded figures, ignored extras, malformed answers.

Invariant: a figure beyond reason is never booked; what the reply that holds it has cost is unknown.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

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
# Fields that tell what was charged.
FIGURES = {("usage",), ("inputTextTokenCount",)}
# Tiers of service that have prices of their own, by any vendor's word.
OFF_LIST = frozenset({"batch", "flex", "priority", "reserved"})


class Part(BaseModel):
    """Base of the parts of a reply: what we do not rely on is ignored."""

    model_config = ConfigDict(extra="ignore")

    def charged(self, request_id: str | None) -> Answer | None:
        """What was charged for a whole reply, without its text, where the reply says so."""
        del request_id
        return None


def read_part(
    part: type[PartT], body: bytes, *, content_type: str, request_id: str | None
) -> PartT:
    """The reply in a body; raises `ProviderFailure` (`malformed_answer`) if it is none.

    An answer is none the worse for figures that cannot be read: they are left out, rather than the
    call paid once more. What was charged for another is read from those of its fields that are as
    they should be.
    """
    try:
        return part.model_validate_json(body)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False)
        wrong = {error["loc"][:1] for error in errors}
        readable = _without(wrong, part, body)
        if wrong <= FIGURES:
            return readable
        where = ".".join(str(step) for step in errors[0]["loc"]) or "body"
        kind = content_type or "no content type"
        raise malformed(
            f"the answer ({kind}) is unreadable at {where}: {errors[0]['msg']}",
            request_id,
            readable.charged(request_id),
        ) from exc


def _without(wrong: Collection[tuple[int | str, ...]], part: type[PartT], body: bytes) -> PartT:
    """A reply without the fields that cannot be read: none, if the body cannot."""
    fields: dict[str, object] = {} if () in wrong else from_json(body)
    return part.model_validate({name: fields[name] for name in fields if (name,) not in wrong})


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
