"""A host that notes what it is sent and answers what the test says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from metallm_stream.providers import Provider, ProviderSettings, open_provider
from tests.vendors import KEY


@dataclass
class Tap:
    """What was sent, and what is answered: any path, one status, one body."""

    answer: Any
    status: int = 200
    answer_headers: Mapping[str, str] = field(default_factory=dict)
    requests: list[web.Request] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    address: str = ""

    @property
    def headers(self) -> list[Mapping[str, str]]:
        """The headers of each request."""
        return [request.headers for request in self.requests]

    @property
    def bodies(self) -> list[Any]:
        """The JSON body of each request."""
        return [json.loads(body) for body in self.raw]

    async def reply(self, request: web.Request) -> web.Response:
        """Note the request; answer."""
        self.requests.append(request)
        self.raw.append(await request.read())
        is_raw = isinstance(self.answer, bytes)
        body = self.answer if is_raw else json.dumps(self.answer).encode()
        headers = {"content-type": "application/json"} | dict(self.answer_headers)
        return web.Response(body=body, status=self.status, headers=headers)


@asynccontextmanager
async def tapped(
    wire: str,
    answer: Any,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    own: Mapping[str, str] | None = None,
    **changed: Any,
) -> AsyncIterator[tuple[Tap, Provider]]:
    """A tap and a provider that talks to it over the wire with headers of its own."""
    tap = Tap(answer, status, headers or {})
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", tap.reply)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    tap.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    base_url = f"{tap.address}/v1" if wire == "openai" else tap.address
    known = {
        "name": "v",
        "wire": wire,
        "region": "eu-west-1",
        "base_url": base_url,
        "api_key": KEY,
        "headers": own or {},
    }
    provider = open_provider(ProviderSettings.model_validate(known | changed))
    try:
        yield tap, provider
    finally:
        await provider.close()
        await runner.cleanup()
