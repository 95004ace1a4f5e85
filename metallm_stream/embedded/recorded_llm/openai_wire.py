"""The OpenAI chat wire: `POST /v1/chat/completions`.

Invariant: every completion and error made here has the fields and types that the vendor's own
SDK declares; `usage.cost` is the one extension, as OpenRouter has it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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

# Status, type and code of each error.
_ERRORS: Mapping[Trouble, tuple[int, str, str | None]] = {
    Trouble.UNREADABLE: (400, "invalid_request_error", None),
    Trouble.UNAUTHORIZED: (401, "invalid_request_error", "invalid_api_key"),
    Trouble.UNKNOWN_MODEL: (404, "invalid_request_error", "model_not_found"),
    Trouble.NOT_RECORDED: (404, "invalid_request_error", "recording_not_found"),
    Trouble.CONTEXT_TOO_LONG: (400, "invalid_request_error", "context_length_exceeded"),
    Trouble.RATE_LIMITED: (429, "requests", "rate_limit_exceeded"),
    Trouble.OUT_OF_QUOTA: (429, "insufficient_quota", "insufficient_quota"),
    Trouble.SERVER_ERROR: (500, "server_error", None),
}


class _Turn(BaseModel):
    role: str
    content: str | list[TextPart] | None = None


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[_Turn]
    stream: bool | None = None


class OpenAIWire:
    """OpenAI's chat completions."""

    path = "/v1/chat/completions"
    request_id_header = "x-request-id"

    def credential(self, http: web.Request) -> str:
        """The Bearer token."""
        return bearer(http)

    def read(self, http: web.Request, body: bytes) -> Asked:
        """Model and text of the last user turn; raises `RequestError`."""
        try:
            chat = _Body.model_validate_json(body)
        except ValidationError as exc:
            raise RequestError(explain(exc)) from exc
        if chat.stream:
            raise RequestError("stream: recorded answers come in one piece; leave stream out")
        asked = [joined(turn.content) for turn in chat.messages if turn.role == "user"]
        if not asked:
            raise RequestError("messages: no user turn")
        return Asked(chat.model, asked[-1], http.headers.get("Idempotency-Key", ""))

    def answer(self, request: ChatRequest, outcome: Outcome, fault: Fault | None) -> dict[str, Any]:
        """A chat completion; the charged faults bend its choice."""
        return {
            "id": f"chatcmpl-{request.digest[:24]}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": request.model,
            "choices": _choices(outcome, fault),
            "usage": _usage(request, outcome),
            "system_fingerprint": "recorded",
        }

    def trouble(
        self,
        trouble: Trouble,
        message: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> web.Response:
        """An error object; inside a 200, a rate limit has its status as code."""
        known, kind, word = _ERRORS[trouble]
        code: str | int | None = (
            known if status == 200 and trouble is Trouble.RATE_LIMITED else word
        )
        body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
        return web.json_response(body, status=status or known, headers=headers)

    def wait_headers(self, retry_after_s: float) -> dict[str, str]:
        """Retry-After, and what is left of the limit."""
        return retry_after(retry_after_s) | {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": f"{retry_after_s:g}s",
        }


def models(names: Sequence[str]) -> dict[str, Any]:
    """The list of models."""
    listed = [{"id": n, "object": "model", "created": 0, "owned_by": "recorded"} for n in names]
    return {"object": "list", "data": listed}


def _choices(outcome: Outcome, fault: Fault | None) -> list[dict[str, Any]]:
    message: dict[str, Any] = {"role": "assistant", "content": outcome.text, "refusal": None}
    finish_reason = "stop"
    if fault is Fault.EMPTY_CHOICES:
        return []
    if fault is Fault.CONTENT_FILTER:
        message["content"], finish_reason = None, "content_filter"
    if fault is Fault.REFUSAL:
        message["content"], message["refusal"] = None, "I cannot help with this request."
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    return [choice]


def _usage(request: ChatRequest, outcome: Outcome) -> dict[str, Any]:
    tokens_in, tokens_out = outcome.prompt_tokens(request.text), outcome.completion_tokens()
    usage: dict[str, Any] = {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
    if outcome.cost_usd is not None:
        usage["cost"] = outcome.cost_usd
    return usage
