"""The OpenAI wire, spoken by the official `openai` SDK to any host that understands it.

Invariant: one `complete` is one HTTP request that ends within its timeout, whatever the host
does; the SDK's own retries are off, redirects are not followed, and bodies are bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
)

from metallm_stream.events import Generation, Model
from metallm_stream.providers.base import Answer, ProviderFailure, ProviderSettings
from metallm_stream.providers.http_failures import classify, retry_after_s
from metallm_stream.providers.openai_clients import OPENAI_URL, OpenAIClients
from metallm_stream.providers.openai_reply import read_reply
from metallm_stream.providers.rate_headers import read_limits

_CONNECT_S = 10.0


class OpenAIProvider:
    """One host that speaks the OpenAI wire.

    Proxies come from the usual variables, never for loopback addresses; TLS is always verified.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self.name = settings.name
        self._secrets = settings.secrets()
        self._url = settings.base_url or OPENAI_URL
        self._clients = OpenAIClients(settings)

    async def complete(
        self,
        model: Model,
        messages: Sequence[Mapping[str, str]],
        generation: Generation | None,
        *,
        timeout_s: float,
        idempotency_key: str,
    ) -> Answer:
        """One chat completion; see `Provider.complete`."""
        try:
            # The SDK's timeout starts anew with every byte, so a trickle would never end.
            async with asyncio.timeout(timeout_s):
                with self._clients.client() as client:
                    # The SDK's typed method looks at each field of the request: a fifth of the
                    # processor time of a call.
                    raw = await client.post(
                        "/chat/completions",
                        cast_to=httpx2.Response,
                        body={
                            "model": model.model,
                            "messages": list(messages),
                            **_parameters(model, generation, self._url),
                        },
                        options={
                            "headers": {"Idempotency-Key": idempotency_key},
                            "timeout": httpx2.Timeout(
                                timeout_s, connect=min(timeout_s, _CONNECT_S)
                            ),
                        },
                    )
            answer = read_reply(
                raw.content,
                content_type=raw.headers.get("content-type", ""),
                request_id=raw.headers.get("x-request-id"),
            )
            return replace(answer, limits=read_limits(raw.headers, datetime.now(UTC)))
        except (TimeoutError, APIError, ProviderFailure) as exc:
            # No "from exc": the chain would print the host's own words, which may echo the key.
            raise _failure(exc, timeout_s).without(self._secrets) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._clients.close()


def _parameters(model: Model, generation: Generation | None, url: str) -> dict[str, Any]:
    if generation is None:
        return {}
    limits = [n for n in (generation.max_output_tokens, model.max_output_tokens) if n is not None]
    wanted = {
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "seed": generation.seed,
        "stop": None if generation.stop is None else list(generation.stop),
        _limit_name(url): min(limits) if generation.max_output_tokens is not None else None,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _limit_name(url: str) -> str:
    # OpenAI's newer models refuse the old name; many compatible hosts know only that one.
    official = (urlsplit(url).hostname or "").endswith(".openai.com")
    return "max_completion_tokens" if official else "max_tokens"


def _host(location: str) -> str:
    try:
        return urlsplit(location).netloc or "another path"
    except ValueError:
        return "an unreadable address"


def _failure(exc: Exception, timeout_s: float) -> ProviderFailure:
    match exc:
        case ProviderFailure():
            return exc
        case APIStatusError():
            return _status_failure(exc)
        case APITimeoutError() if isinstance(exc.__cause__, httpx2.ConnectTimeout):
            return ProviderFailure("connection", "connecting took too long", retriable=True)
        case APITimeoutError() | TimeoutError():
            return ProviderFailure("timeout", f"no answer within {timeout_s:.3g} s", retriable=True)
        case APIConnectionError():
            reason = f"{type(exc.__cause__).__name__}: {str(exc.__cause__) or 'broken off'}"
            return ProviderFailure("connection", reason, retriable=True)
        case _:
            return ProviderFailure("malformed_answer", str(exc), retriable=True)


def _status_failure(exc: APIStatusError) -> ProviderFailure:
    response = exc.response
    kind, retriable = classify(exc.status_code, code=exc.code, message=exc.message)
    message = exc.message
    if response.is_redirect:
        target = _host(response.headers.get("location", ""))
        message = f"redirected ({exc.status_code}) to {target}: refused, as it would carry the key "
        message += "there; set base_url to the final address"
    return ProviderFailure(
        kind,
        message,
        retriable=retriable,
        retry_after_s=retry_after_s(response.headers, datetime.now(UTC)),
        request_id=exc.request_id,
        limits=read_limits(response.headers, datetime.now(UTC)),
    )
