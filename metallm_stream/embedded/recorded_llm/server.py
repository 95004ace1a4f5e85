"""The recorded LLM's HTTP server: `POST /v1/chat/completions`, `GET /v1/models`, `GET /ledger`.

Invariant: it answers only what was recorded; an unknown model or text gets the vendor's kind of
404, never an invented answer. It listens on loopback only.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from pydantic import SecretStr

from metallm_stream.embedded.recorded_llm import wire
from metallm_stream.embedded.recorded_llm.faults import CHARGED, ChatRequest, Faults, no_faults
from metallm_stream.embedded.recorded_llm.latency import Latency
from metallm_stream.embedded.recorded_llm.ledger import Ledger
from metallm_stream.embedded.recorded_llm.misbehave import Misdeed, misbehave
from metallm_stream.embedded.recorded_llm.recording import Outcome, Recording

_HOST = "127.0.0.1"
_LARGEST_REQUEST_BYTES = 32_000_000
_SHUTDOWN_S = 0.2  # for answers under way; what hangs is cut off
_BEGAN_S = web.RequestKey("began_s", float)
_ELSEWHERE = "http://elsewhere.invalid/v1/chat/completions"


class RecordedLLM:
    """A vendor on a loopback port, as an asynchronous context manager.

    Parameters
    ----------
    recording
        What it knows.
    api_key
        The only accepted Bearer value; `None` accepts any that is not empty.
    latency
        How long answers and the faults that are answers take.
    faults
        Which fault, if any, strikes a request.
    ledger
        Where requests are booked.
    port
        Where it listens; 0 takes a free one.
    retry_after_s
        The wait that a rate-limited request is told.
    redirect_to
        Where the fault `redirect` points.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        api_key: SecretStr | None = None,
        latency: Latency | None = None,
        faults: Faults = no_faults,
        ledger: Ledger | None = None,
        port: int = 0,
        retry_after_s: float = 1.0,
        redirect_to: str = _ELSEWHERE,
    ) -> None:
        self.ledger = ledger if ledger is not None else Ledger()
        self.port = port
        self._recording = recording
        self._api_key = api_key
        self._latency = latency if latency is not None else Latency()
        self._faults = faults
        self._retry_after_s = retry_after_s
        self._redirect_to = redirect_to
        self._requests = 0
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """The address to give to an OpenAI client."""
        return f"http://{_HOST}:{self.port}/v1"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=_LARGEST_REQUEST_BYTES)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/ledger", self._ledger)
        app.on_response_prepare.append(self._stamp)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, _HOST, self.port, backlog=2_048).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _stamp(self, request: web.Request, response: web.StreamResponse) -> None:
        self._requests += 1
        response.headers["x-request-id"] = f"req-{self._requests:08d}"
        began_s = request.get(_BEGAN_S, time.perf_counter())
        response.headers["openai-processing-ms"] = str(round((time.perf_counter() - began_s) * 1e3))

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        http[_BEGAN_S] = time.perf_counter()
        if (refused := self._unauthorized(http)) is not None:
            return refused
        try:
            model, text = wire.read_request(await http.read())
        except wire.RequestError as exc:
            return wire.error_response(400, str(exc), kind="invalid_request_error")
        outcome = self._find(model, text)
        if isinstance(outcome, web.Response):
            return outcome
        return await self._answer(http, self._known(http, model, text), outcome)

    async def _answer(
        self, http: web.Request, request: ChatRequest, outcome: Outcome
    ) -> web.StreamResponse:
        fault = self._faults(request)
        charged = fault is None or fault in CHARGED
        self.ledger.book(request, fault=fault, charged=charged, cost_usd=outcome.cost_usd)
        if charged:
            await asyncio.sleep(self._latency.of(outcome, request.identity))
        answer = wire.completion(request, outcome, fault)
        if fault is None:
            return web.json_response(answer)
        return await misbehave(fault, Misdeed(http, answer, self._retry_after_s, self._redirect_to))

    def _unauthorized(self, http: web.Request) -> web.Response | None:
        scheme, _, given = http.headers.get("Authorization", "").partition(" ")
        known = given if self._api_key is None else self._api_key.get_secret_value()
        if scheme == "Bearer" and given and hmac.compare_digest(given.encode(), known.encode()):
            return None
        return wire.error_response(
            401,
            "Incorrect or missing API key: send it as a Bearer token.",
            kind="invalid_request_error",
            code="invalid_api_key",
        )

    def _find(self, model: str, text: str) -> Outcome | web.Response:
        if model not in self._recording.models:
            message = f"The model {model!r} is not in this recording."
            return _not_found(message, "model_not_found")
        outcome = (self._recording.outcomes(text) or {}).get(model)
        if outcome is None:
            message = f"No answer of {model!r} to this text was recorded ({len(text)} characters)."
            return _not_found(message, "recording_not_found")
        return outcome

    def _known(self, http: web.Request, model: str, text: str) -> ChatRequest:
        key = http.headers.get("Idempotency-Key", "")
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        number = self.ledger.number(key, model, digest)
        return ChatRequest(model, text, digest, key, number)

    async def _models(self, http: web.Request) -> web.Response:
        if (refused := self._unauthorized(http)) is not None:
            return refused
        return web.json_response(wire.models(self._recording.models))

    async def _ledger(self, _http: web.Request) -> web.Response:
        summary: dict[str, Any] = self.ledger.summary()
        return web.json_response(summary)


def _not_found(message: str, code: str) -> web.Response:
    return wire.error_response(404, message, kind="invalid_request_error", code=code)
