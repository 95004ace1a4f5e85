"""The HTTP client that every wire's SDK is given, and what its troubles mean.

Invariant: a call is never sent to another host than the one in the settings, except through a
proxy named in the environment, and never over TLS that is not verified; bodies are bounded and
not compressed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2

from metallm_stream.errors import ConfigurationError
from metallm_stream.providers.base import ProviderFailure, ProviderSettings
from metallm_stream.providers.bounded_body import bound_body
from metallm_stream.providers.http_failures import classify, retry_after_s
from metallm_stream.providers.known_headers import only_known_headers
from metallm_stream.providers.rate_headers import read_limits
from metallm_stream.providers.transport import AiohttpClient

PLAIN_BODY = {"Accept-Encoding": "identity"}
_NO_KEY = "none"  # for hosts that need none: the SDKs insist on one
_CONNECT_S = 10.0
_NEVER_PROXIED = ("all://127.0.0.1", "all://localhost", "all://[::1]")


def http_client(
    settings: ProviderSettings,
    *,
    headers: Iterable[str],
    prefixes: tuple[str, ...],
) -> httpx2.AsyncClient:
    """A client that sends, of all headers, only HTTP's own, these, and those with a prefix.

    Proxies come from the usual variables, never for loopback addresses. Raises
    `ConfigurationError` if one of them is no address.
    """
    try:
        return AiohttpClient(
            limits=httpx2.Limits(max_connections=settings.max_connections),
            follow_redirects=False,
            cookies=_NoCookies(),
            mounts=dict.fromkeys(_NEVER_PROXIED),
            event_hooks={
                "request": [only_known_headers(headers, prefixes)],
                "response": [bound_body(settings.max_answer_bytes)],
            },
        )
    except (httpx2.InvalidURL, ValueError):
        # No "from": what could not be read may be a part of a password.
        raise ConfigurationError(
            "the environment names a proxy that is no address: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY "
            "and NO_PROXY must be like http://user:password@host:port, with /, #, ? and @ in a "
            "password as %2F, %23, %3F and %40"
        ) from None


class _NoCookies(CookieJar):
    """Keeps none: one that cannot be sent would break every request that follows."""

    def extract_cookies(self, response: object, request: object) -> None:
        """Leave them where they are."""


def sdk_options(settings: ProviderSettings, url: str, *own_headers: str) -> dict[str, Any]:
    """What the client of an SDK is made with; `own_headers` are those of its wire.

    Named here, the key cannot be replaced by one from the environment.
    """
    key = _NO_KEY if settings.api_key is None else settings.api_key.get_secret_value()
    headers = {"Authorization": f"Bearer {key}", **settings.plain_headers(), **PLAIN_BODY}
    sent = (*headers, *own_headers)
    return {
        "api_key": key,
        "base_url": url,
        "max_retries": 0,
        "default_headers": headers,
        "http_client": http_client(settings, headers=sent, prefixes=("x-stainless-",)),
    }


def timeouts(timeout_s: float) -> httpx2.Timeout:
    """The waits for connections and bytes: each byte starts one anew, so none bounds a call."""
    return httpx2.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S))


def lost(trouble: BaseException, timeout_s: float) -> ProviderFailure:
    """The failure of a request that brought no complete response."""
    match trouble:
        case ProviderFailure():
            return trouble
        case aiohttp.ConnectionTimeoutError():
            return ProviderFailure("connection", "connecting took too long", retriable=True)
        case TimeoutError():
            return ProviderFailure("timeout", f"no answer within {timeout_s:.3g} s", retriable=True)
        case _:
            reason = f"{type(trouble).__name__}: {str(trouble) or 'broken off'}"
            return ProviderFailure("connection", reason, retriable=True)


def refused(
    status: int,
    headers: Mapping[str, str],
    *,
    message: str,
    code: str | None = None,
    request_id: str | None = None,
) -> ProviderFailure:
    """The failure of a response whose status is no success; `code` is the vendor's word for it."""
    kind, retriable = classify(status, code=code, message=message)
    if 300 <= status < 400:
        target = _host(headers.get("location", ""))
        message = f"redirected ({status}) to {target}: refused, as it would carry the key there; "
        message += "set base_url to the final address"
    return ProviderFailure(
        kind,
        message,
        retriable=retriable,
        retry_after_s=retry_after_s(headers, datetime.now(UTC)),
        request_id=request_id,
        limits=read_limits(headers, datetime.now(UTC)),
    )


def _host(location: str) -> str:
    try:
        return urlsplit(location).netloc or "another path"
    except ValueError:
        return "an unreadable address"
