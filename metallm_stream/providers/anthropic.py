"""Anthropic's Messages API, spoken by the official `anthropic` SDK.

Invariant: one `complete` is one HTTP request that ends within its timeout, whatever the host
does; the SDK's own retries are off, redirects are not followed, and bodies are bounded.

The API has no seed, and since its version 2026-10-21 neither temperature nor top_p: it refuses a
request that has them. They are left out, so that Claude can stand beside other arms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
from anthropic import APIConnectionError, APIError, APIStatusError, AsyncAnthropic

from metallm_stream.events import Generation, Model
from metallm_stream.providers.anthropic_reply import read_reply
from metallm_stream.providers.base import Answer, ProviderFailure, ProviderSettings
from metallm_stream.providers.http_client import lost, refused, sdk_options, timeouts
from metallm_stream.providers.rate_headers import read_limits
from metallm_stream.providers.turns import output_limit, system_and_turns

ANTHROPIC_URL = "https://api.anthropic.com"
# The API wants a limit in every request; thinking counts against it. A ceiling, not a spend.
_MAX_TOKENS = 8_192
_OWN_HEADERS = ("Idempotency-Key", "anthropic-version")


class AnthropicProvider:
    """One host that speaks Anthropic's wire.

    Proxies come from the usual variables, never for loopback addresses; TLS is always verified.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self.name = settings.name
        self._secrets, self._keys = settings.secrets(), settings.keys()
        url = settings.base_url or ANTHROPIC_URL
        self._client = AsyncAnthropic(**sdk_options(settings, url, *_OWN_HEADERS))

    async def complete(
        self,
        model: Model,
        messages: Sequence[Mapping[str, str]],
        generation: Generation | None,
        *,
        timeout_s: float,
        idempotency_key: str,
    ) -> Answer:
        """One message; see `Provider.complete`."""
        try:
            # The SDK's timeout starts anew with every byte, so a trickle would never end.
            async with asyncio.timeout(timeout_s):
                raw = await self._client.messages.with_raw_response.create(
                    model=model.model,
                    timeout=timeouts(timeout_s),
                    extra_headers={"Idempotency-Key": idempotency_key},
                    **_parameters(model, messages, generation),
                )
                body = await raw.read()
            headers = dict(raw.headers)
            answer = read_reply(
                body,
                content_type=headers.get("content-type", ""),
                request_id=headers.get("request-id"),
            )
            limits = read_limits(headers, datetime.now(UTC))
            return replace(answer.without(self._secrets, self._keys), limits=limits)
        except (TimeoutError, APIError, aiohttp.ClientError, ProviderFailure) as exc:
            # No "from exc": the chain would print the host's own words, which may echo the key.
            raise _failure(exc, timeout_s).without(self._secrets) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()


def _parameters(
    model: Model, messages: Sequence[Mapping[str, str]], generation: Generation | None
) -> dict[str, Any]:
    system, turns = system_and_turns(messages)
    wanted: dict[str, Any] = {
        "messages": turns,
        "max_tokens": output_limit(model, generation) or model.max_output_tokens or _MAX_TOKENS,
        "system": system,
        "stop_sequences": list(generation.stop) if generation and generation.stop else None,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _failure(exc: Exception, timeout_s: float) -> ProviderFailure:
    match exc:
        case APIStatusError():
            return refused(
                exc.status_code,
                exc.response.headers,
                message=str(exc.api_message or exc.message),
                code=exc.type,
                request_id=exc.request_id,
            )
        case APIConnectionError():
            return lost(exc.__cause__ or exc, timeout_s)
        case ProviderFailure() | TimeoutError() | aiohttp.ClientError():
            return lost(exc, timeout_s)
        case _:
            return ProviderFailure("malformed_answer", str(exc), retriable=True)
