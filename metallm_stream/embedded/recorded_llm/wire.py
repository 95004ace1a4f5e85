"""The shapes of the OpenAI chat wire: what is read from a request, what is sent back.

Invariant: every completion and error made here has the fields and types that the vendor's own
SDK declares; `usage.cost` is the one extension, as OpenRouter has it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from metallm_stream.embedded.recorded_llm.faults import ChatRequest, Fault
from metallm_stream.embedded.recorded_llm.recording import Outcome
from metallm_stream.errors import MetallmError
from metallm_stream.events import explain


class RequestError(MetallmError):
    """A request that cannot be read; the message says why."""


class _Part(BaseModel):
    type: str
    text: str | None = None


class _Turn(BaseModel):
    role: str
    content: str | list[_Part] | None = None

    @property
    def text(self) -> str:
        """The turn's text, its text parts joined."""
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content if part.type == "text")
        return self.content or ""


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[_Turn]
    stream: bool | None = None


def read_request(body: bytes) -> tuple[str, str]:
    """Model and text of the last user turn; raises `RequestError`."""
    try:
        chat = _Body.model_validate_json(body)
    except ValidationError as exc:
        raise RequestError(explain(exc)) from exc
    if chat.stream:
        raise RequestError("stream: recorded answers come in one piece; leave stream out")
    asked = [turn.text for turn in chat.messages if turn.role == "user"]
    if not asked:
        raise RequestError("messages: no user turn")
    return chat.model, asked[-1]


def completion(request: ChatRequest, outcome: Outcome, fault: Fault | None) -> dict[str, Any]:
    """A chat completion; the charged faults bend its choice."""
    identity = hashlib.sha256(f"{request.idempotency_key} {request.identity}".encode()).hexdigest()
    return {
        "id": f"chatcmpl-{identity[:24]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": _choices(outcome, fault),
        "usage": _usage(request, outcome),
        "system_fingerprint": "recorded",
    }


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


def models(names: Sequence[str]) -> dict[str, Any]:
    """The list of models."""
    listed = [{"id": n, "object": "model", "created": 0, "owned_by": "recorded"} for n in names]
    return {"object": "list", "data": listed}


def error(message: str, *, kind: str, code: str | int | None) -> dict[str, Any]:
    """An error object; `kind` is its `type`."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_response(
    status: int,
    message: str,
    *,
    kind: str,
    code: str | int | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """An error as an HTTP response."""
    return web.json_response(error(message, kind=kind, code=code), status=status, headers=headers)
