"""boto3's client of Amazon Bedrock, with our own HTTP client beneath it.

Invariant: a call ends when its awaiter does, whatever the host sends or does not send, and then
frees its thread and its connection; boto3 retries nothing and follows nothing.

boto3 blocks, so each call has a thread of a bounded pool. boto3 builds, signs and reads; what it
would send itself, its event `before-send` hands to the HTTP client that all wires share, in the
event loop. So deadline, cancelling, bounded bodies, proxies and TLS are the same code everywhere.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import threading
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import aiohttp
import boto3
import botocore
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, CredentialRetrievalError

from metallm_stream.errors import ConfigurationError, Unreachable
from metallm_stream.providers.base import ProviderSettings
from metallm_stream.providers.bedrock_failures import failure_of
from metallm_stream.providers.http_client import PLAIN_BODY, http_client, lost, refused, timeouts

_SIGNED = ("Authorization", "amz-sdk-invocation-id", "amz-sdk-request")
# At DEBUG they write signed headers, session tokens and prompts.
_TALKATIVE = ("botocore.auth", "botocore.endpoint", "botocore.hooks", "botocore.parsers")


@dataclass(frozen=True, slots=True)
class Received:
    """A response as it came, complete, and what of it must not be told; see `Answer.without`."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    secrets: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


class BedrockClient:
    """Calls of Bedrock's operations, up to `settings.max_connections` at a time.

    Credentials are those of boto3's own chain (the AWS variables and files, roles), or
    `settings.api_key` as a Bedrock API key. Raises `ConfigurationError` without credentials or
    region.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self._settings = settings
        self._headers = settings.plain_headers() | PLAIN_BODY
        session = boto3.Session()
        if settings.api_key is not None:
            self._headers["Authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
        self._credentials = (
            _credentials(session, settings.name) if settings.api_key is None else None
        )
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.INFO)
        self._boto = _boto(session, settings)
        self._boto.meta.events.register("before-send.bedrock-runtime", self._before_send)
        self._http = http_client(
            settings,
            headers=(*self._headers, *_SIGNED),
            prefixes=("x-amz",),
        )
        self._threads = ThreadPoolExecutor(settings.max_connections, f"bedrock-{settings.name}")
        self._here = threading.local()

    async def call(
        self, operation: str, parameters: Mapping[str, Any], *, timeout_s: float
    ) -> Received:
        """One request; raises `ProviderFailure`, or `TimeoutError` after `timeout_s`."""
        exchange = _Exchange(asyncio.get_running_loop(), timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(
                    self._threads, self._run, exchange, operation, parameters
                )
        finally:
            exchange.abandon()

    async def close(self) -> None:
        """Close all connections; threads end with their calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._http.aclose()
        self._boto.close()

    def _run(self, exchange: _Exchange, operation: str, parameters: Mapping[str, Any]) -> Received:
        """In a thread: build and sign, send, read."""
        keys = set(self._settings.keys())
        self._here.exchange = exchange
        try:
            if self._credentials is not None:
                keys |= {part for part in self._credentials.get_frozen_credentials()[:3] if part}
            getattr(self._boto, operation)(**parameters)
        except CancelledError:
            raise
        except Exception as exc:
            # boto3 raises whatever comes when it reads what is not of the declared shape.
            failure = failure_of(exc, was_reading=exchange.received is not None)
            if failure is None:
                raise
            raise failure.without(self._secrets(keys | exchange.secrets)) from None
        assert exchange.received is not None
        keys |= exchange.secrets
        return replace(exchange.received, secrets=self._secrets(keys), keys=_longest_first(keys))

    def _secrets(self, keys: set[str]) -> tuple[str, ...]:
        return _longest_first(keys.union(self._settings.secrets()))

    def _before_send(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        exchange: _Exchange = self._here.exchange
        received = exchange.send(request, self._deliver(request, exchange.timeout_s))
        return AWSResponse(request.url, received.status, received.headers, _Body(received.body))

    async def _deliver(self, request: AWSPreparedRequest, timeout_s: float) -> Received:
        """In the event loop: one HTTP request."""
        headers = {name: _text(value) for name, value in request.headers.items()} | self._headers
        try:
            response = await self._http.request(
                request.method,
                request.url,
                headers=headers,
                content=request.body,
                timeout=timeouts(timeout_s),
            )
        except aiohttp.ClientError as exc:
            raise lost(exc, timeout_s) from None
        if response.is_redirect:
            raise refused(response.status_code, response.headers, message="redirected")
        return Received(response.status_code, dict(response.headers), response.content)


class _Exchange:
    """One request on its way: sent by the event loop, awaited by a thread, ended by either."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.received: Received | None = None
        self.secrets: set[str] = set()
        self._loop = loop
        self._lock = threading.Lock()
        self._under_way: Future[Received] | None = None
        self._abandoned = False

    def send(
        self, request: AWSPreparedRequest, delivery: Coroutine[Any, Any, Received]
    ) -> Received:
        """Wait for the delivery; raises `CancelledError` once nobody waits for its result."""
        named = (request.headers.get(name) for name in ("Authorization", "X-Amz-Security-Token"))
        self.secrets = {_text(value).removeprefix("Bearer ") for value in named if value}
        with self._lock:
            if self._abandoned:
                delivery.close()
                raise CancelledError
            self._under_way = asyncio.run_coroutine_threadsafe(delivery, self._loop)
        self.received = self._under_way.result()
        return self.received

    def abandon(self) -> None:
        """Break off what is under way, and send nothing any more."""
        with self._lock:
            self._abandoned = True
            if self._under_way is not None:
                self._under_way.cancel()


class _Body(io.BytesIO):
    """A body that is all there, as boto3 reads it."""

    def stream(self) -> Iterator[bytes]:
        """The whole body in one piece."""
        yield self.getvalue()


class _Boto(Protocol):
    """The part of boto3's client that we use, besides the operations."""

    meta: Any

    def close(self) -> None: ...


class _Credentials(Protocol):
    """Credentials that refresh themselves where they must."""

    def get_frozen_credentials(self) -> tuple[str | None, ...]:
        """Access key, secret key and session token as they are now."""


def _boto(session: boto3.Session, settings: ProviderSettings) -> _Boto:
    bearer = {} if settings.api_key is None else {"signature_version": botocore.UNSIGNED}
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        ignore_configured_endpoint_urls=True,
        **bearer,
    )
    try:
        client: _Boto = session.client(
            "bedrock-runtime",
            region_name=settings.region,
            endpoint_url=settings.base_url,
            config=config,
        )
    except BotoCoreError as exc:
        raise ConfigurationError(
            f"provider {settings.name!r}: {exc} "
            f"(METALLM_PROVIDERS__{settings.name.upper()}__REGION names a region)"
        ) from exc
    return client


def _credentials(session: boto3.Session, name: str) -> _Credentials | None:
    try:
        found: _Credentials | None = session.get_credentials()
    except BotoCoreError as exc:
        # Whoever gives them may be down for a while.
        kind = Unreachable if isinstance(exc, CredentialRetrievalError) else ConfigurationError
        raise kind(f"provider {name!r}: AWS credentials: {exc}") from exc
    if found is None and not os.environ.get("AWS_BEARER_TOKEN_BEDROCK"):
        raise ConfigurationError(
            f"provider {name!r}: no AWS credentials were found: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY (or what else boto3 reads), or name the variable of a Bedrock "
            f"API key in METALLM_PROVIDERS__{name.upper()}__API_KEY_ENV"
        )
    return found


def _longest_first(secrets: set[str]) -> tuple[str, ...]:
    return tuple(sorted(secrets, key=len, reverse=True))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
