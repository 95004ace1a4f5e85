"""How each fault looks on the wire.

Invariant: a fault never outlives the server or its connection: what hangs ends with either.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from aiohttp import web

from metallm_stream.embedded.recorded_llm.faults import Fault
from metallm_stream.embedded.recorded_llm.wire import Trouble, Wire

_TRICKLE_S = 0.02
_OVERSIZE_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class Misdeed:
    """What a fault has at hand: wire and request, the answer it spoils, and the settings."""

    wire: Wire
    http: web.Request
    answer: dict[str, Any]
    retry_after_s: float
    redirect_to: str


async def misbehave(fault: Fault, misdeed: Misdeed) -> web.StreamResponse:
    """Send what `fault` stands for."""
    return await _MISDEEDS[fault](misdeed)


async def _server_error(deed: Misdeed) -> web.StreamResponse:
    return deed.wire.trouble(Trouble.SERVER_ERROR, "The server had an error.")


async def _rate_limited(deed: Misdeed) -> web.StreamResponse:
    message = "Rate limit reached for requests; try again later."
    headers = deed.wire.wait_headers(deed.retry_after_s)
    return deed.wire.trouble(Trouble.RATE_LIMITED, message, headers=headers)


async def _out_of_quota(deed: Misdeed) -> web.StreamResponse:
    return deed.wire.trouble(Trouble.OUT_OF_QUOTA, "The quota of this account is used up.")


async def _unauthorized(deed: Misdeed) -> web.StreamResponse:
    message = f"Incorrect API key provided: {deed.wire.credential(deed.http)}."
    return deed.wire.trouble(Trouble.UNAUTHORIZED, message)


async def _bad_request(deed: Misdeed) -> web.StreamResponse:
    return deed.wire.trouble(Trouble.UNREADABLE, "temperature: must be a number.")


async def _context_too_long(deed: Misdeed) -> web.StreamResponse:
    message = "The maximum context length of this model is 8192 tokens; the messages have more."
    return deed.wire.trouble(Trouble.CONTEXT_TOO_LONG, message)


async def _error_in_200(deed: Misdeed) -> web.StreamResponse:
    return deed.wire.trouble(Trouble.SERVER_ERROR, "The upstream failed.", status=200)


async def _rate_limited_in_200(deed: Misdeed) -> web.StreamResponse:
    return deed.wire.trouble(Trouble.RATE_LIMITED, "Rate limit exceeded upstream.", status=200)


async def _hang(_deed: Misdeed) -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets this event")


async def _trickle(deed: Misdeed) -> NoReturn:
    response = web.StreamResponse(headers={"content-type": "application/json"})
    await response.prepare(deed.http)
    while True:
        await response.write(b" ")
        await asyncio.sleep(_TRICKLE_S)


async def _reset(deed: Misdeed) -> web.StreamResponse:
    transport = deed.http.transport
    if transport is not None:
        # With a linger time of zero, closing sends RST instead of FIN.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def _cut_off(deed: Misdeed) -> web.StreamResponse:
    body = json.dumps(deed.answer).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    response = web.StreamResponse(headers=headers)
    await response.prepare(deed.http)
    await response.write(body[: len(body) // 2])
    if deed.http.transport is not None:
        deed.http.transport.close()
    return response


async def _html(_deed: Misdeed) -> web.StreamResponse:
    page = "<!DOCTYPE html><html><body><h1>Welcome</h1></body></html>"
    return web.Response(text=page, content_type="text/html")


async def _truncated(deed: Misdeed) -> web.StreamResponse:
    body = json.dumps(deed.answer)
    return web.Response(text=body[: len(body) // 2], content_type="application/json")


async def _oversized(deed: Misdeed) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/json"})
    await response.prepare(deed.http)
    chunk = b" " * 65_536
    for _ in range(_OVERSIZE_BYTES // len(chunk)):
        await response.write(chunk)
    await response.write_eof(json.dumps(deed.answer).encode())
    return response


async def _compressed(deed: Misdeed) -> web.StreamResponse:
    body = gzip.compress(json.dumps(deed.answer).encode())
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    return web.Response(body=body, headers=headers)


async def _as_answered(deed: Misdeed) -> web.StreamResponse:
    return web.json_response(deed.answer)


async def _redirect(deed: Misdeed) -> web.StreamResponse:
    return web.Response(status=307, headers={"location": deed.redirect_to})


_MISDEEDS: dict[Fault, Callable[[Misdeed], Awaitable[web.StreamResponse]]] = {
    Fault.SERVER_ERROR: _server_error,
    Fault.RATE_LIMITED: _rate_limited,
    Fault.OUT_OF_QUOTA: _out_of_quota,
    Fault.UNAUTHORIZED: _unauthorized,
    Fault.BAD_REQUEST: _bad_request,
    Fault.CONTEXT_TOO_LONG: _context_too_long,
    Fault.ERROR_IN_200: _error_in_200,
    Fault.RATE_LIMITED_IN_200: _rate_limited_in_200,
    Fault.HANG: _hang,
    Fault.TRICKLE: _trickle,
    Fault.RESET: _reset,
    Fault.CUT_OFF: _cut_off,
    Fault.HTML: _html,
    Fault.TRUNCATED: _truncated,
    Fault.OVERSIZED: _oversized,
    Fault.COMPRESSED: _compressed,
    Fault.EMPTY_CHOICES: _as_answered,
    Fault.CONTENT_FILTER: _as_answered,
    Fault.REFUSAL: _as_answered,
    Fault.REDIRECT: _redirect,
}
