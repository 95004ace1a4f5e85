"""aiohttp's connections beneath an HTTPX client.

The SDKs take a client of HTTPX. aiohttp needs half the processor time of HTTPX's own transport for
a request, and still less with hundreds of connections.

Invariant: what arrives is the request as it was built: its path is not quoted anew (it may be
signed), no cookie is kept or sent, and nothing is followed, unpacked or sent twice.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx2
from httpx2 import create_ssl_context
from yarl import URL

from metallm_stream.errors import ConfigurationError

_IDLE_S = 30.0
_CHUNK_BYTES = 16_384


class AiohttpClient(httpx2.AsyncClient):
    """An HTTPX client whose connections, to proxies as well, are aiohttp's."""

    def _init_transport(self, *_: object, **options: Any) -> httpx2.AsyncBaseTransport:  # noqa: ANN401
        return AiohttpTransport(create_ssl_context(), options["limits"])

    def _init_proxy_transport(
        self,
        proxy: httpx2.Proxy,
        *_: object,
        **options: Any,  # noqa: ANN401
    ) -> httpx2.AsyncBaseTransport:
        return AiohttpTransport(create_ssl_context(), options["limits"], proxy)


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Requests by one session of aiohttp, opened in the event loop of the first one.

    Errors of the network are aiohttp's own.
    """

    def __init__(
        self, ssl_context: ssl.SSLContext, limits: httpx2.Limits, proxy: httpx2.Proxy | None = None
    ) -> None:
        if proxy is not None and proxy.url.scheme not in {"http", "https"}:
            raise ConfigurationError(
                f"the environment names a proxy {proxy.url.scheme}://{proxy.url.host}: "
                "only http:// and https:// proxies are spoken"
            )
        self._ssl_context = ssl_context
        self._connections = limits.max_connections or 0
        self._through: dict[str, Any] = {}
        if proxy is not None:
            auth = None if proxy.auth is None else aiohttp.BasicAuth(*proxy.auth)
            self._through = {"proxy": str(proxy.url), "proxy_auth": auth}
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request whose body is in memory; the response's body is still to be read."""
        if self._session is None:
            self._session = self._open()
        waits = request.extensions["timeout"]
        response = await self._session.request(
            request.method,
            URL(str(request.url), encoded=True),
            headers=request.headers,
            data=request.content,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                connect=waits["pool"], sock_connect=waits["connect"], sock_read=waits["read"]
            ),
            **self._through,
        )
        return httpx2.Response(
            response.status, headers=response.raw_headers, stream=_Stream(response), request=request
        )

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._connections, keepalive_timeout=_IDLE_S, ssl=self._ssl_context
        )
        return aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        )


class _Stream(httpx2.AsyncByteStream):
    """A response's body as it comes."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._response.content.iter_chunked(_CHUNK_BYTES):
            yield chunk

    async def aclose(self) -> None:
        """Give the connection back, or end it if the body was not read to its end."""
        self._response.release()
