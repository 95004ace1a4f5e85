"""The SDK's clients of one host, each with a small connection pool of its own.

Invariant: a call is never sent to another host than the one in the settings, except through a
proxy named in the environment, and never over TLS that is not verified.

Several small pools instead of a large one, since the SDK's HTTP library looks at every connection
of a pool twice a request: with hundreds in one pool that is most of what a request costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from metallm_stream.providers.base import ProviderSettings
from metallm_stream.providers.bounded_body import bound_body
from metallm_stream.providers.known_headers import only_known_headers

OPENAI_URL = "https://api.openai.com/v1"
_POOL_CONNECTIONS = 32
_IDLE_S = 30.0
_NEVER_PROXIED = ("all://127.0.0.1", "all://localhost", "all://[::1]")


@dataclass(slots=True)
class _Pool:
    client: AsyncOpenAI
    size: int
    busy: int = 0


class OpenAIClients:
    """Clients for up to `settings.max_connections` calls at a time, made as they are needed."""

    def __init__(self, settings: ProviderSettings) -> None:
        self._settings = settings
        self._ssl_context = httpx2.create_ssl_context()
        self._pools: list[_Pool] = []

    @contextmanager
    def client(self) -> Iterator[AsyncOpenAI]:
        """A client with a free connection, or the least busy one if there is none."""
        pool = self._pool()
        pool.busy += 1
        try:
            yield pool.client
        finally:
            pool.busy -= 1

    async def close(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.client.close()
        self._pools.clear()

    def _pool(self) -> _Pool:
        for pool in self._pools:
            if pool.busy < pool.size:
                return pool
        left = self._settings.max_connections - sum(pool.size for pool in self._pools)
        if left <= 0:
            return min(self._pools, key=lambda pool: pool.busy)
        size = min(left, _POOL_CONNECTIONS)
        self._pools.append(_Pool(self._open(size), size))
        return self._pools[-1]

    def _open(self, connections: int) -> AsyncOpenAI:
        settings = self._settings
        key = settings.api_key.get_secret_value()
        own = {name: value.get_secret_value() for name, value in settings.headers.items()}
        # Named here, the key cannot be replaced by one from the environment.
        headers = {"Authorization": f"Bearer {key}", **own, "Accept-Encoding": "identity"}
        return AsyncOpenAI(
            api_key=key,
            base_url=settings.base_url or OPENAI_URL,
            max_retries=0,
            default_headers=headers,
            http_client=DefaultAsyncHttpxClient(
                verify=self._ssl_context,
                limits=httpx2.Limits(
                    max_connections=connections,
                    max_keepalive_connections=connections,
                    keepalive_expiry=_IDLE_S,
                ),
                follow_redirects=False,
                mounts=dict.fromkeys(_NEVER_PROXIED),
                event_hooks={
                    "request": [
                        only_known_headers((*headers, "Idempotency-Key"), ("x-stainless-",))
                    ],
                    "response": [bound_body(settings.max_answer_bytes)],
                },
            ),
        )
