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

import aiohttp
import httpx2
from openai import APIConnectionError, APIError, APIStatusError, AsyncOpenAI

from metallm_stream.events import Generation, Model
from metallm_stream.providers.base import Answer, ProviderFailure, ProviderSettings
from metallm_stream.providers.http_client import lost, refused, sdk_options, timeouts
from metallm_stream.providers.openai_reply import read_reply
from metallm_stream.providers.rate_headers import read_limits
from metallm_stream.providers.turns import output_limit

OPENAI_URL = "https://api.openai.com/v1"
# Where hosts have their words: as OpenAI, in a list (Gemini), as `error` (xAI) or `detail`.
_WORDS = ("message", "error", "detail", "msg")


class OpenAIProvider:
    """One host that speaks the OpenAI wire.

    Proxies come from the usual variables, never for loopback addresses; TLS is always verified.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self.name = settings.name
        self._secrets, self._keys = settings.secrets(), settings.keys()
        self._url = settings.base_url or OPENAI_URL
        self._client = AsyncOpenAI(**sdk_options(settings, self._url, "Idempotency-Key"))

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
                # The SDK's typed method looks at each field of the request: a fifth of the
                # processor time of a call.
                raw = await self._client.post(
                    "/chat/completions",
                    cast_to=httpx2.Response,
                    body={
                        "model": model.model,
                        "messages": list(messages),
                        **_parameters(model, generation, self._url),
                    },
                    options={
                        "headers": {"Idempotency-Key": idempotency_key},
                        "idempotency_key": idempotency_key,  # or the SDK draws one
                        "timeout": timeouts(timeout_s),
                    },
                )
            headers = dict(raw.headers)
            answer = read_reply(
                raw.content,
                content_type=headers.get("content-type", ""),
                request_id=headers.get("x-request-id"),
            )
            limits = read_limits(headers, datetime.now(UTC))
            return replace(answer.without(self._secrets, self._keys), limits=limits)
        except (TimeoutError, APIError, aiohttp.ClientError, ProviderFailure) as exc:
            # No "from exc": the chain would print the host's own words, which may echo the key.
            raise _failure(exc, timeout_s).without(self._secrets) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()


def _parameters(model: Model, generation: Generation | None, url: str) -> dict[str, Any]:
    if generation is None:
        return {}
    wanted = {
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "seed": generation.seed,
        "stop": None if generation.stop is None else list(generation.stop),
        _limit_name(url): output_limit(model, generation),
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _limit_name(url: str) -> str:
    # OpenAI's newer models refuse the old name; many compatible hosts know only that one.
    official = (urlsplit(url).hostname or "").endswith(".openai.com")
    return "max_completion_tokens" if official else "max_tokens"


def _failure(exc: Exception, timeout_s: float) -> ProviderFailure:
    match exc:
        case APIStatusError():
            return refused(
                exc.status_code,
                exc.response.headers,
                message=_message(exc),
                code=exc.code,
                request_id=exc.request_id,
            )
        case APIConnectionError():
            return lost(exc.__cause__ or exc, timeout_s)
        case ProviderFailure() | TimeoutError() | aiohttp.ClientError():
            return lost(exc, timeout_s)
        case _:
            return ProviderFailure("malformed_answer", str(exc), retriable=True)


def _message(exc: APIStatusError) -> str:
    """The host's words; the SDK leaves out those that are not where OpenAI has them."""
    said: object = exc.body
    for _ in _WORDS:  # they lie no deeper
        if isinstance(said, list):
            said = next(iter(said), None)
        elif isinstance(said, dict):
            said = next((said[name] for name in _WORDS if said.get(name)), None)
    is_text = isinstance(said, str) and said and not said.startswith("<")
    return f"Error code: {exc.status_code} - {said}" if is_text else exc.message
