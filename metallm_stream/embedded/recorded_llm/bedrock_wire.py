"""Amazon Bedrock's wires: `POST /model/{id}/converse`, and `/invoke` in the shape of Titan's text.

Invariant: every answer and error made here has the fields and types of the vendor's own service
model. Signatures are not checked, only whose they say they are. The wires have no word for a cost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from metallm_stream.embedded.recorded_llm.faults import ChatRequest, Fault
from metallm_stream.embedded.recorded_llm.recording import Outcome
from metallm_stream.embedded.recorded_llm.wire import (
    Asked,
    RequestError,
    TextPart,
    Trouble,
    bearer,
    joined,
    retry_after,
)
from metallm_stream.events import explain

_ERRORS: Mapping[Trouble, tuple[int, str]] = {
    Trouble.UNREADABLE: (400, "ValidationException"),
    Trouble.UNAUTHORIZED: (403, "UnrecognizedClientException"),
    Trouble.UNKNOWN_MODEL: (404, "ResourceNotFoundException"),
    Trouble.NOT_RECORDED: (404, "ResourceNotFoundException"),
    Trouble.CONTEXT_TOO_LONG: (400, "ValidationException"),
    Trouble.RATE_LIMITED: (429, "ThrottlingException"),
    Trouble.OUT_OF_QUOTA: (400, "ServiceQuotaExceededException"),
    Trouble.SERVER_ERROR: (500, "InternalServerException"),
}
_TOO_LONG = "Input is too long for requested model."
_METADATA_KEY = "idempotency-key"
_SIGNED_BY = re.compile(r"^AWS4-HMAC-SHA256 Credential=([^/]+)/")


class _Bedrock:
    """What both operations share."""

    request_id_header = "x-amzn-requestid"

    def credential(self, http: web.Request) -> str:
        """The access key's id of a signed request, or the API key of another."""
        signed = _SIGNED_BY.match(http.headers.get("Authorization", ""))
        return signed[1] if signed else bearer(http)

    def trouble(
        self,
        trouble: Trouble,
        message: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> web.Response:
        """An error; its name stands in a header."""
        known, kind = _ERRORS[trouble]
        said = _TOO_LONG if trouble is Trouble.CONTEXT_TOO_LONG else message
        named = {"x-amzn-errortype": f"{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/"}
        named |= headers or {}
        return web.json_response({"message": said}, status=status or known, headers=named)

    def wait_headers(self, retry_after_s: float) -> dict[str, str]:
        """Retry-After."""
        return retry_after(retry_after_s)


class _Turn(BaseModel):
    role: str
    content: list[TextPart]


class _Converse(BaseModel):
    model_config = ConfigDict(extra="ignore")

    messages: list[_Turn]
    requestMetadata: dict[str, str] | None = None  # noqa: N815 - the wire's name


class ConverseWire(_Bedrock):
    """Bedrock's Converse."""

    path = "/model/{model}/converse"

    def read(self, http: web.Request, body: bytes) -> Asked:
        """Model and text of the last user turn; raises `RequestError`."""
        try:
            asked = _Converse.model_validate_json(body)
        except ValidationError as exc:
            raise RequestError(explain(exc)) from exc
        if not asked.messages or asked.messages[-1].role != "user":
            raise RequestError("messages: the conversation must end with a user message")
        key = (asked.requestMetadata or {}).get(_METADATA_KEY, "")
        return Asked(http.match_info["model"], joined(asked.messages[-1].content), key)

    def answer(self, request: ChatRequest, outcome: Outcome, fault: Fault | None) -> dict[str, Any]:
        """An answer of Converse; the charged faults bend its content."""
        reasons = {
            Fault.CONTENT_FILTER: "content_filtered",
            Fault.REFUSAL: "guardrail_intervened",
        }
        tokens_in, tokens_out = outcome.prompt_tokens(request.text), outcome.completion_tokens()
        is_bent = fault in reasons or fault is Fault.EMPTY_CHOICES
        content = [] if is_bent else [{"text": outcome.text}]
        return {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": "end_turn" if fault is None else reasons.get(fault, "end_turn"),
            "usage": {
                "inputTokens": tokens_in,
                "outputTokens": tokens_out,
                "totalTokens": tokens_in + tokens_out,
                "cacheReadInputTokens": 0,
                "cacheWriteInputTokens": 0,
            },
            "metrics": {"latencyMs": 1},
        }


class _Invoke(BaseModel):
    model_config = ConfigDict(extra="ignore")

    inputText: str  # noqa: N815 - the wire's name


class TitanWire(_Bedrock):
    """Bedrock's InvokeModel of a Titan text model."""

    path = "/model/{model}/invoke"

    def read(self, http: web.Request, body: bytes) -> Asked:
        """Model and text of the last user turn; raises `RequestError`."""
        try:
            asked = _Invoke.model_validate_json(body).inputText
            said = json.loads(http.headers.get("X-Amzn-Bedrock-Request-Metadata", "{}"))
        except ValueError as exc:  # pydantic's is one, too
            shown = explain(exc) if isinstance(exc, ValidationError) else f"metadata: {exc}"
            raise RequestError(shown) from exc
        text = asked.rpartition("User: ")[2].removesuffix("\nBot:")
        return Asked(http.match_info["model"], text, str(dict(said).get(_METADATA_KEY, "")))

    def answer(self, request: ChatRequest, outcome: Outcome, fault: Fault | None) -> dict[str, Any]:
        """An answer of Titan's; the charged faults bend its result."""
        is_filtered = fault in {Fault.CONTENT_FILTER, Fault.REFUSAL}
        result = {
            "tokenCount": outcome.completion_tokens(),
            "outputText": "" if is_filtered else f"\n{outcome.text}",
            "completionReason": "CONTENT_FILTERED" if is_filtered else "FINISHED",
        }
        return {
            "inputTextTokenCount": outcome.prompt_tokens(request.text),
            "results": [] if fault is Fault.EMPTY_CHOICES else [result],
        }
