"""Bedrock's Converse: one shape for the models of all vendors that it hosts.

Invariant: only a reply with readable text becomes an `Answer`; tokens that were charged for an
unusable reply are kept with the failure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from metallm_stream.events import Generation, Model
from metallm_stream.providers.base import Answer
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
from metallm_stream.providers.turns import output_limit, system_and_turns, temperature_to_1

METADATA_KEY = "idempotency-key"
_DECLINED = {
    "guardrail_intervened": "a guardrail intervened",
    "content_filtered": "stopped by a content filter",
}
_GARBLED = {"malformed_model_output", "malformed_tool_use"}


def parameters(
    model: Model,
    messages: Sequence[Mapping[str, str]],
    generation: Generation | None,
    idempotency_key: str,
) -> dict[str, Any]:
    """The request; the idempotency key goes along as metadata, since Bedrock knows none.

    Turns of one side that follow each other are one turn, as Converse wants them to take turns.
    """
    system, turns = system_and_turns(messages)
    wanted: dict[str, Any] = {
        "modelId": model.model,
        "messages": [
            {"role": role, "content": [{"text": turn["content"]} for turn in group]}
            for role, group in groupby(turns, key=lambda turn: turn["role"])
        ],
        "system": None if system is None else [{"text": system}],
        "inferenceConfig": _inference(model, generation),
        "requestMetadata": {METADATA_KEY: idempotency_key},
    }
    return {name: value for name, value in wanted.items() if value}


def _inference(model: Model, generation: Generation | None) -> dict[str, Any]:
    if generation is None:
        return {}
    # Claude's newer models refuse sampling parameters, by Bedrock as by Anthropic.
    sampled = "anthropic.claude" not in model.model
    wanted = {
        "maxTokens": output_limit(model, generation),
        "temperature": temperature_to_1(generation) if sampled else None,
        "topP": generation.top_p if sampled else None,
        "stopSequences": None if generation.stop is None else list(generation.stop),
    }
    return {name: value for name, value in wanted.items() if value is not None}


class _Block(Part):
    text: str | None = None


class _Message(Part):
    content: list[_Block] | None = None


class _Output(Part):
    message: _Message | None = None


class _Cache(Part):
    ttl: str | None = None
    inputTokens: Count | None = None  # noqa: N815 - the wire's names


class _Usage(Part):
    inputTokens: Count | None = None  # noqa: N815
    outputTokens: Count | None = None  # noqa: N815
    cacheReadInputTokens: Count | None = None  # noqa: N815
    cacheWriteInputTokens: Count | None = None  # noqa: N815
    cacheDetails: list[_Cache] | None = None  # noqa: N815


class _Tier(Part):
    type: str | None = None


class _Performance(Part):
    latency: str | None = None


class _Reply(Part):
    output: _Output | None = None
    stopReason: str | None = None  # noqa: N815
    usage: _Usage | None = None
    serviceTier: _Tier | None = None  # noqa: N815
    performanceConfig: _Performance | None = None  # noqa: N815
    message: str | None = None

    def texts(self) -> list[str]:
        """The texts of the answer."""
        message = (self.output or _Output()).message or _Message()
        return [block.text for block in message.content or () if block.text]

    def off_list(self) -> str | None:
        """Why the usual prices do not hold."""
        tier = (self.serviceTier or _Tier()).type
        speed = (self.performanceConfig or _Performance()).latency
        if tier in OFF_LIST:
            return tier
        if speed not in {None, "standard"}:
            return speed
        kept = (self.usage or _Usage()).cacheDetails or ()
        is_long = any(cache.inputTokens and cache.ttl != "5m" for cache in kept)
        return "a long cache" if is_long else None

    def charged(self, request_id: str | None) -> Answer | None:
        """See `Part.charged`."""
        return None if self.usage is None else _answer(self, "", request_id)


def read_reply(body: bytes, content_type: str, request_id: str | None) -> Answer:
    """The answer in the body of a 200; raises `ProviderFailure` if there is none.

    Kinds: `malformed_answer` (no JSON, another shape, no text, garbled by the model),
    `unsupported` (cut off before any text), `refused` (a guardrail or a content filter).
    `input_tokens` count cached ones in, which Bedrock tells apart.
    """
    reply = read_part(_Reply, body, content_type=content_type, request_id=request_id)
    texts = reply.texts()
    answer = _answer(reply, "".join(texts), request_id)
    billed = answer if reply.usage is not None else None
    reason = reply.stopReason or ""
    if reason in _DECLINED:
        raise declined("".join(texts) or _DECLINED[reason], request_id, billed)
    if reason in _GARBLED:
        raise malformed(f"the model's output is garbled ({reason})", request_id, billed)
    if not texts and reason != "stop_sequence":
        said = reply.message or f"it stopped for {reply.stopReason}"
        raise without_text(said, answer, billed)
    return answer


def _answer(reply: _Reply, text: str, request_id: str | None) -> Answer:
    usage = reply.usage or _Usage()
    cached, written = usage.cacheReadInputTokens, usage.cacheWriteInputTokens
    plain = usage.inputTokens
    return Answer(
        text=text,
        input_tokens=None if plain is None else total(plain, cached, written),
        output_tokens=usage.outputTokens,
        cached_input_tokens=cached,
        request_id=request_id,
        finish_reason=FINISHED.get(reply.stopReason or "", reply.stopReason),
        cache_write_tokens=written,
        off_list=reply.off_list(),
    )
