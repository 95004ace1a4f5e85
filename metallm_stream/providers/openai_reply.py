"""The part of a chat completion that we rely on, and nothing of the rest.

Invariant: only a reply with readable text becomes an `Answer`; tokens and cost that a vendor
charged for an unusable reply are kept with the failure.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metallm_stream.providers.base import Answer, ProviderFailure
from metallm_stream.providers.http_failures import classify

# Beyond these a figure is nonsense, and so is the reply that holds it.
_Count = Annotated[int, Field(ge=0, le=10**9)]
_Usd = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _PromptDetails(_Part):
    cached_tokens: _Count | None = None


class _CostDetails(_Part):
    upstream_inference_cost: _Usd | None = None


class _Usage(_Part):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    cost: _Usd | None = None
    is_byok: bool | None = None
    cost_details: _CostDetails | None = None

    def cost_usd(self) -> float | None:
        """The vendor's charge; with one's own upstream key, its fee plus the upstream's charge."""
        if self.cost is None or not self.is_byok or self.cost_details is None:
            return self.cost
        return self.cost + (self.cost_details.upstream_inference_cost or 0.0)


class _Error(_Part):
    message: str | None = None
    code: int | str | None = None


class _Message(_Part):
    content: str | None = None
    refusal: str | None = None


class _Choice(_Part):
    finish_reason: str | None = None
    message: _Message | None = None
    error: _Error | str | None = None


class _Reply(_Part):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: _Error | str | None = None


def read_reply(body: bytes, *, content_type: str, request_id: str | None) -> Answer:
    """The answer in the body of a 200; raises `ProviderFailure` if there is none.

    Kinds: `malformed_answer` (no JSON, another shape, no choice, no text), `refused` (content
    filter or refusal), and for an error inside a 200 that of its HTTP-like code.
    """
    try:
        reply = _Reply.model_validate_json(body)
    except ValidationError as exc:
        raise _malformed(_unreadable(exc, content_type), request_id) from exc
    usage = reply.usage or _Usage()
    details = usage.prompt_tokens_details or _PromptDetails()
    choice = reply.choices[0] if reply.choices else _Choice()
    message = choice.message or _Message()
    answer = Answer(
        text=message.content or "",
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cached_input_tokens=details.cached_tokens,
        cost_usd=usage.cost_usd(),
        request_id=request_id,
        finish_reason=choice.finish_reason,
    )
    billed = answer if reply.usage is not None else None
    if (error := reply.error or choice.error) is not None:
        raise _inner_error(error, request_id, billed)
    if message.refusal or choice.finish_reason == "content_filter":
        said = message.refusal or "stopped by a content filter"
        raise ProviderFailure(
            "refused", said, retriable=False, request_id=request_id, billed=billed
        )
    if message.content is None:
        raise _malformed("the answer holds no text", request_id, billed)
    return answer


def _inner_error(
    error: _Error | str, request_id: str | None, billed: Answer | None
) -> ProviderFailure:
    if isinstance(error, str):
        error = _Error(message=error)
    said = f"error inside a 200: {error.message or 'without a message'} (code {error.code})"
    code = str(error.code)
    if not (code.isdecimal() and 400 <= int(code) <= 599):
        return _malformed(said, request_id, billed)
    kind, retriable = classify(int(code), message=error.message or "")
    return ProviderFailure(kind, said, retriable=retriable, request_id=request_id, billed=billed)


def _malformed(said: str, request_id: str | None, billed: Answer | None = None) -> ProviderFailure:
    return ProviderFailure(
        "malformed_answer", said, retriable=True, request_id=request_id, billed=billed
    )


def _unreadable(error: ValidationError, content_type: str) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(step) for step in first["loc"]) or "body"
    return (
        f"the answer ({content_type or 'no content type'}) is unreadable at {where}: {first['msg']}"
    )
