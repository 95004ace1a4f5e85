"""Anthropic's Messages API: `POST /v1/messages`.

Invariant: every message and error made here has the fields and types that the vendor's own SDK
declares. The wire has no word for a cost.
"""

from __future__ import annotations

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
    Trouble.UNREADABLE: (400, "invalid_request_error"),
    Trouble.UNAUTHORIZED: (401, "authentication_error"),
    Trouble.UNKNOWN_MODEL: (404, "not_found_error"),
    Trouble.NOT_RECORDED: (404, "not_found_error"),
    Trouble.CONTEXT_TOO_LONG: (400, "invalid_request_error"),
    Trouble.RATE_LIMITED: (429, "rate_limit_error"),
    Trouble.OUT_OF_QUOTA: (402, "billing_error"),
    Trouble.SERVER_ERROR: (500, "api_error"),
}
_TOO_LONG = "prompt is too long: 208310 tokens > 200000 maximum"


class _Turn(BaseModel):
    role: str
    content: str | list[TextPart]


class _Body(BaseModel):
    # What the API refuses, such as a temperature, is refused here.
    model_config = ConfigDict(extra="forbid")

    model: str
    messages: list[_Turn]
    max_tokens: int
    system: str | list[TextPart] | None = None
    stop_sequences: list[str] | None = None
    metadata: dict[str, str] | None = None


class AnthropicWire:
    """Anthropic's messages."""

    path = "/v1/messages"
    request_id_header = "request-id"

    def credential(self, http: web.Request) -> str:
        """The key of `X-Api-Key`, or the Bearer token."""
        return http.headers.get("X-Api-Key", "") or bearer(http)

    def read(self, http: web.Request, body: bytes) -> Asked:
        """Model and text of the last user turn; raises `RequestError`."""
        if not http.headers.get("anthropic-version"):
            raise RequestError("anthropic-version: header is required")
        try:
            asked = _Body.model_validate_json(body)
        except ValidationError as exc:
            raise RequestError(explain(exc)) from exc
        if not asked.messages or asked.messages[-1].role != "user":
            raise RequestError("messages: the last turn must be the user's")
        text = joined(asked.messages[-1].content)
        return Asked(asked.model, text, http.headers.get("Idempotency-Key", ""))

    def answer(self, request: ChatRequest, outcome: Outcome, fault: Fault | None) -> dict[str, Any]:
        """A message; the charged faults bend its content."""
        refuses = fault in {Fault.CONTENT_FILTER, Fault.REFUSAL}
        says_nothing = refuses or fault is Fault.EMPTY_CHOICES
        text = {"type": "text", "text": outcome.text, "citations": None}
        details = {"type": "refusal", "category": None, "explanation": None}
        return {
            "id": f"msg_{request.digest[:24]}",
            "type": "message",
            "role": "assistant",
            "model": request.model,
            "content": [] if says_nothing else [text],
            "stop_reason": "refusal" if refuses else "end_turn",
            "stop_sequence": None,
            "stop_details": details if refuses else None,
            "usage": {
                "input_tokens": outcome.prompt_tokens(request.text),
                "output_tokens": outcome.completion_tokens(),
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "service_tier": "standard",
            },
        }

    def trouble(
        self,
        trouble: Trouble,
        message: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> web.Response:
        """An error object."""
        known, kind = _ERRORS[trouble]
        said = _TOO_LONG if trouble is Trouble.CONTEXT_TOO_LONG else message
        body = {"type": "error", "error": {"type": kind, "message": said}, "request_id": None}
        return web.json_response(body, status=status or known, headers=headers)

    def wait_headers(self, retry_after_s: float) -> dict[str, str]:
        """Retry-After, and what is left of the limit."""
        return retry_after(retry_after_s) | {
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-tokens-remaining": "0",
        }
