"""Amazon Bedrock, spoken by the official `boto3` SDK: Converse, and InvokeModel for Titan's text.

Invariant: one `complete` is one HTTP request that ends within its timeout, whatever the host
does; see `bedrock_client`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metallm_stream.events import Generation, Model
from metallm_stream.providers import bedrock_converse, bedrock_titan
from metallm_stream.providers.base import Answer, ProviderFailure, ProviderSettings
from metallm_stream.providers.bedrock_client import BedrockClient
from metallm_stream.providers.http_client import lost


@dataclass(frozen=True, slots=True)
class _Dialect:
    operation: str
    parameters: Callable[
        [Model, Sequence[Mapping[str, str]], Generation | None, str], dict[str, Any]
    ]
    read_reply: Callable[[bytes, str, str | None], Answer]


_CONVERSE = _Dialect("converse", bedrock_converse.parameters, bedrock_converse.read_reply)
_TITAN = _Dialect("invoke_model", bedrock_titan.parameters, bedrock_titan.read_reply)


class BedrockProvider:
    """Bedrock in one region of AWS, or a host that speaks like it."""

    def __init__(self, settings: ProviderSettings) -> None:
        self.name = settings.name
        self._client = BedrockClient(settings)

    async def complete(
        self,
        model: Model,
        messages: Sequence[Mapping[str, str]],
        generation: Generation | None,
        *,
        timeout_s: float,
        idempotency_key: str,
    ) -> Answer:
        """One request; see `Provider.complete`."""
        dialect = _TITAN if bedrock_titan.is_titan_text(model) else _CONVERSE
        asked = dialect.parameters(model, messages, generation, idempotency_key)
        try:
            received = await self._client.call(dialect.operation, asked, timeout_s=timeout_s)
        except TimeoutError as exc:
            raise lost(exc, timeout_s) from None
        try:
            answer = dialect.read_reply(
                received.body,
                received.headers.get("content-type", ""),
                received.headers.get("x-amzn-requestid"),
            )
        except ProviderFailure as exc:
            raise exc.without(received.secrets) from None
        return answer.without(received.secrets, received.keys)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()
