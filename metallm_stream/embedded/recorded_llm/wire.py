"""What the server must know of a vendor's wire: how requests, answers and errors look.

Invariant: a wire decides shapes alone; what is answered, charged or spoilt is decided once, for all
wires alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from aiohttp import web
from pydantic import BaseModel

from metallm_stream.embedded.recorded_llm.faults import ChatRequest, Fault
from metallm_stream.embedded.recorded_llm.recording import Outcome
from metallm_stream.errors import MetallmError


class RequestError(MetallmError):
    """A request that cannot be read; the message says why."""


class Trouble(StrEnum):
    """The errors that every vendor has, each in a shape of its own."""

    UNREADABLE = "unreadable"
    UNAUTHORIZED = "unauthorized"
    UNKNOWN_MODEL = "unknown_model"
    NOT_RECORDED = "not_recorded"
    CONTEXT_TOO_LONG = "context_too_long"
    RATE_LIMITED = "rate_limited"
    OUT_OF_QUOTA = "out_of_quota"
    SERVER_ERROR = "server_error"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks of whom; without an idempotency key it is empty."""

    model: str
    text: str
    idempotency_key: str = ""


class Wire(Protocol):
    """One vendor's protocol."""

    path: str
    request_id_header: str

    def credential(self, http: web.Request) -> str:
        """What the request shows as its key; empty if nothing."""

    def read(self, http: web.Request, body: bytes) -> Asked:
        """Model and text of the last user turn; raises `RequestError`."""

    def answer(self, request: ChatRequest, outcome: Outcome, fault: Fault | None) -> dict[str, Any]:
        """An answer; the charged faults bend it."""

    def trouble(
        self,
        trouble: Trouble,
        message: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> web.Response:
        """An error in the vendor's shape, with the vendor's status unless another is given."""

    def wait_headers(self, retry_after_s: float) -> dict[str, str]:
        """What a rate-limited request is told in headers."""


class TextPart(BaseModel):
    """A part of a turn; only text is read."""

    type: str = "text"
    text: str | None = None


def joined(content: str | list[TextPart] | None) -> str:
    """A turn's text, its text parts joined."""
    if isinstance(content, list):
        return "".join(part.text or "" for part in content if part.type == "text")
    return content or ""


def bearer(http: web.Request) -> str:
    """The Bearer token, or nothing."""
    scheme, _, given = http.headers.get("Authorization", "").partition(" ")
    return given if scheme == "Bearer" else ""


def retry_after(retry_after_s: float) -> dict[str, str]:
    """The wait in whole seconds, as the standard has it, and in milliseconds, as SDKs read it."""
    return {
        "retry-after": str(math.ceil(retry_after_s)),
        "retry-after-ms": str(math.ceil(retry_after_s * 1e3)),
    }
