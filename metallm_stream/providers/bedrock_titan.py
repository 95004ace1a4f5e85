"""Amazon Titan's text models through Bedrock's InvokeModel, as Converse gives them no system text.

Invariant: only a reply with readable text becomes an `Answer`; tokens that were charged for an
unusable reply are kept with the failure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from metallm_stream.events import Generation, Model
from metallm_stream.providers.base import Answer
from metallm_stream.providers.bedrock_converse import METADATA_KEY
from metallm_stream.providers.reply import Count, Part, declined, read_part, without_text
from metallm_stream.providers.turns import output_limit, system_and_turns, temperature_to_1

_SPEAKERS = {"user": "User", "assistant": "Bot"}
_FINISHED = {"FINISHED": "stop", "STOP_CRITERIA_MET": "stop", "LENGTH": "length"}


def is_titan_text(model: Model) -> bool:
    """Whether a model is asked in Titan's shape, by the name that Amazon gave it."""
    return "amazon.titan-text" in model.model


def parameters(
    model: Model,
    messages: Sequence[Mapping[str, str]],
    generation: Generation | None,
    idempotency_key: str,
) -> dict[str, Any]:
    """The request: the conversation as one text, in the form that Titan was made for."""
    body: dict[str, Any] = {"inputText": _script(messages)}
    if config := _config(model, generation):
        body["textGenerationConfig"] = config
    return {
        "modelId": model.model,
        "contentType": "application/json",
        "accept": "application/json",
        "body": json.dumps(body).encode(),
        "requestMetadata": json.dumps({METADATA_KEY: idempotency_key}),
    }


def _script(messages: Sequence[Mapping[str, str]]) -> str:
    system, turns = system_and_turns(messages)
    said = [f"{_SPEAKERS[turn['role']]}: {turn['content']}" for turn in turns]
    return ("" if system is None else f"{system}\n\n") + "\n".join([*said, "Bot:"])


def _config(model: Model, generation: Generation | None) -> dict[str, Any]:
    wish = generation or Generation()
    wanted = {
        # Without one, Titan stops after 512 tokens.
        "maxTokenCount": output_limit(model, generation) or model.max_output_tokens,
        "temperature": temperature_to_1(wish),
        "topP": wish.top_p,
        "stopSequences": None if wish.stop is None else list(wish.stop),
    }
    return {name: value for name, value in wanted.items() if value is not None}


class _Result(Part):
    tokenCount: Count | None = None  # noqa: N815 - the wire's names
    outputText: str | None = None  # noqa: N815
    completionReason: str | None = None  # noqa: N815


class _Reply(Part):
    inputTextTokenCount: Count | None = None  # noqa: N815
    results: list[_Result] | None = None
    message: str | None = None

    def charged(self, request_id: str | None) -> Answer | None:
        """See `Part.charged`."""
        count = self.inputTextTokenCount
        return None if count is None else Answer("", input_tokens=count, request_id=request_id)


def read_reply(body: bytes, content_type: str, request_id: str | None) -> Answer:
    """The answer in the body of a 200; raises `ProviderFailure` if there is none.

    Kinds: `malformed_answer` (no JSON, another shape, no text), `unsupported` (cut off before any
    text), `refused` (a content filter).
    """
    reply = read_part(_Reply, body, content_type=content_type, request_id=request_id)
    result = reply.results[0] if reply.results else _Result()
    reason = result.completionReason
    answer = Answer(
        text=(result.outputText or "").strip(),
        input_tokens=reply.inputTextTokenCount,
        output_tokens=result.tokenCount,
        request_id=request_id,
        finish_reason=_FINISHED.get(reason or "", reason),
    )
    billed = answer if reply.inputTextTokenCount is not None else None
    if reason == "CONTENT_FILTERED":
        raise declined("stopped by a content filter", request_id, billed)
    if result.outputText is None or (answer.finish_reason == "length" and not answer.text):
        raise without_text(reply.message or f"it stopped for {reason}", answer, billed)
    return answer
