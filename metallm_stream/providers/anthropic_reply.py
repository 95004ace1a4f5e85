"""The part of a message of Anthropic's that we rely on, and nothing of the rest.

Invariant: only a reply with readable text becomes an `Answer`; tokens that were charged for an
unusable reply are kept with the failure.
"""

from __future__ import annotations

from metallm_stream.providers.base import Answer, ProviderFailure
from metallm_stream.providers.http_failures import classify
from metallm_stream.providers.reply import (
    FINISHED,
    OFF_LIST,
    Count,
    Part,
    declined,
    malformed,
    read_part,
    total,
    without_text,
)

_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class _Block(Part):
    type: str
    text: str | None = None


class _OutputDetails(Part):
    thinking_tokens: Count | None = None


class _CacheCreation(Part):
    ephemeral_1h_input_tokens: Count | None = None


class _Usage(Part):
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _OutputDetails | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None

    def off_list(self) -> str | None:
        """Why the usual prices do not hold."""
        if self.service_tier in OFF_LIST:
            return self.service_tier
        if self.speed not in {None, "standard"}:
            return self.speed
        if self.inference_geo not in {None, "global", "not_available"}:
            return f"inference in {self.inference_geo}"
        kept = self.cache_creation or _CacheCreation()
        return "a cache for an hour" if kept.ephemeral_1h_input_tokens else None


class _StopDetails(Part):
    explanation: str | None = None


class _Error(Part):
    type: str | None = None
    message: str | None = None


class _Reply(Part):
    content: list[_Block] | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: _Usage | None = None
    error: _Error | None = None

    def charged(self, request_id: str | None) -> Answer | None:
        """See `Part.charged`."""
        return None if self.usage is None else _answer(self, "", request_id)


def read_reply(body: bytes, *, content_type: str, request_id: str | None) -> Answer:
    """The answer in the body of a 200; raises `ProviderFailure` if there is none.

    Kinds: `malformed_answer` (no JSON, another shape, no text), `unsupported` (cut off before any
    text), `refused` (stop reason `refusal`), and for an error inside a 200 that of its type.
    `input_tokens` count cached ones in, which Anthropic tells apart.
    """
    reply = read_part(_Reply, body, content_type=content_type, request_id=request_id)
    texts = [block.text for block in reply.content or () if block.type == "text" and block.text]
    answer = _answer(reply, "".join(texts), request_id)
    billed = answer if reply.usage is not None else None
    if reply.error is not None:
        raise _inner_error(reply.error, request_id, billed)
    if reply.stop_reason == "refusal":
        details = reply.stop_details or _StopDetails()
        raise declined(details.explanation or "the model refused", request_id, billed)
    if not texts and reply.stop_reason != "stop_sequence":
        raise without_text(f"it stopped for {reply.stop_reason}", answer, billed)
    return answer


def _answer(reply: _Reply, text: str, request_id: str | None) -> Answer:
    usage = reply.usage or _Usage()
    cached, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    details = usage.output_tokens_details or _OutputDetails()
    plain = usage.input_tokens
    return Answer(
        text=text,
        input_tokens=None if plain is None else total(plain, cached, written),
        output_tokens=usage.output_tokens,
        cached_input_tokens=cached,
        request_id=request_id,
        finish_reason=FINISHED.get(reply.stop_reason or "", reply.stop_reason),
        cache_write_tokens=written,
        reasoning_tokens=details.thinking_tokens,
        off_list=usage.off_list(),
    )


def _inner_error(error: _Error, request_id: str | None, billed: Answer | None) -> ProviderFailure:
    said = f"error inside a 200: {error.message or 'without a message'} ({error.type})"
    status = _STATUS.get(error.type or "")
    if status is None:
        return malformed(said, request_id, billed)
    kind, retriable = classify(status, code=error.type, message=error.message or "")
    return ProviderFailure(kind, said, retriable=retriable, request_id=request_id, billed=billed)
