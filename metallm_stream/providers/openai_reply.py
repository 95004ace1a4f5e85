"""The part of a chat completion that we rely on, and nothing of the rest.

Invariant: only a reply with readable text becomes an `Answer`; tokens and cost that a vendor
charged for an unusable reply are kept with the failure.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metallm_stream.providers.base import Answer, ProviderFailure
from metallm_stream.providers.http_failures import classify
from metallm_stream.providers.reply import (
    OFF_LIST,
    Count,
    Part,
    declined,
    malformed,
    read_part,
    without_text,
)

_Usd = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class _PromptDetails(Part):
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    audio_tokens: Count | None = None
    image_tokens: Count | None = None


class _CompletionDetails(Part):
    reasoning_tokens: Count | None = None
    audio_tokens: Count | None = None


class _CostDetails(Part):
    upstream_inference_cost: _Usd | None = None


class _Usage(Part):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    total_tokens: Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    cost: _Usd | None = None
    is_byok: bool | None = None
    cost_details: _CostDetails | None = None

    def output_tokens(self) -> int | None:
        """What was written and thought; some hosts tell thought beside the answer, or not at all.

        Then it is what the total has beyond prompt and answer, unless that may have been cached.
        """
        written = self.completion_tokens
        if self.prompt_tokens is None or written is None or self.total_tokens is None:
            return written
        sent = self.prompt_tokens_details or _PromptDetails()
        made = self.completion_tokens_details or _CompletionDetails()
        beyond = self.total_tokens - self.prompt_tokens - written
        explained = made.reasoning_tokens or sent.cached_tokens or sent.cache_write_tokens
        is_thought = beyond > 0 and (beyond == made.reasoning_tokens or not explained)
        return written + beyond if is_thought else written

    def cost_usd(self) -> float | None:
        """The vendor's charge; with one's own upstream key, its fee plus the upstream's charge."""
        if self.cost is None or not self.is_byok or self.cost_details is None:
            return self.cost
        return self.cost + (self.cost_details.upstream_inference_cost or 0.0)


class _Error(Part):
    message: str | None = None
    code: int | str | None = None


class _Message(Part):
    content: str | None = None
    refusal: str | None = None


class _Choice(Part):
    finish_reason: str | None = None
    message: _Message | None = None
    error: _Error | str | None = None


class _Reply(Part):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: _Error | str | None = None
    service_tier: str | None = None

    def charged(self, request_id: str | None) -> Answer | None:
        """See `Part.charged`."""
        return None if self.usage is None else _answer(self, "", None, request_id)


def read_reply(body: bytes, *, content_type: str, request_id: str | None) -> Answer:
    """The answer in the body of a 200; raises `ProviderFailure` if there is none.

    Kinds: `malformed_answer` (no JSON, another shape, no choice, no text), `unsupported` (cut off
    before any text), `refused` (content filter or refusal), and for an error inside a 200 that of
    its HTTP-like code.
    """
    reply = read_part(_Reply, body, content_type=content_type, request_id=request_id)
    choice = reply.choices[0] if reply.choices else _Choice()
    message = choice.message or _Message()
    answer = _answer(reply, message.content or "", choice.finish_reason, request_id)
    billed = answer if reply.usage is not None else None
    if (error := reply.error or choice.error) is not None:
        raise _inner_error(error, request_id, billed)
    if message.refusal or choice.finish_reason == "content_filter":
        raise declined(message.refusal or "stopped by a content filter", request_id, billed)
    if message.content is None or (answer.finish_reason == "length" and not answer.text):
        raise without_text(f"it stopped for {choice.finish_reason}", answer, billed)
    return answer


def _answer(reply: _Reply, text: str, finish_reason: str | None, request_id: str | None) -> Answer:
    usage = reply.usage or _Usage()
    sent = usage.prompt_tokens_details or _PromptDetails()
    made = usage.completion_tokens_details or _CompletionDetails()
    not_text = sent.audio_tokens or sent.image_tokens or made.audio_tokens
    tier = reply.service_tier if reply.service_tier in OFF_LIST else None
    return Answer(
        text=text,
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.output_tokens(),
        cached_input_tokens=sent.cached_tokens,
        cost_usd=usage.cost_usd(),
        request_id=request_id,
        finish_reason=finish_reason,
        cache_write_tokens=sent.cache_write_tokens,
        reasoning_tokens=made.reasoning_tokens,
        off_list="sound or images" if not_text else tier,
    )


def _inner_error(
    error: _Error | str, request_id: str | None, billed: Answer | None
) -> ProviderFailure:
    if isinstance(error, str):
        error = _Error(message=error)
    said = f"error inside a 200: {error.message or 'without a message'} (code {error.code})"
    code = str(error.code)
    if not (len(code) == 3 and code.isdecimal() and 400 <= int(code) <= 599):
        return malformed(said, request_id, billed)
    kind, retriable = classify(int(code), message=error.message or "")
    return ProviderFailure(kind, said, retriable=retriable, request_id=request_id, billed=billed)
