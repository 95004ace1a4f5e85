"""The recorded LLM's HTTP server: the vendors' wires, `GET /v1/models`, `GET /ledger`.

Invariant: it answers only what was recorded; an unknown model or text gets the vendor's kind of
404, never an invented answer. It listens on loopback only.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from functools import partial
from typing import Any, Self

from aiohttp import web
from pydantic import SecretStr

from metallm_stream.embedded.recorded_llm.anthropic_wire import AnthropicWire
from metallm_stream.embedded.recorded_llm.bedrock_wire import ConverseWire, TitanWire
from metallm_stream.embedded.recorded_llm.faults import CHARGED, ChatRequest, Faults, no_faults
from metallm_stream.embedded.recorded_llm.latency import Latency
from metallm_stream.embedded.recorded_llm.ledger import Ledger
from metallm_stream.embedded.recorded_llm.misbehave import Misdeed, misbehave
from metallm_stream.embedded.recorded_llm.openai_wire import OpenAIWire, models
from metallm_stream.embedded.recorded_llm.recording import Outcome, Recording
from metallm_stream.embedded.recorded_llm.wire import Asked, RequestError, Trouble, Wire

_HOST = "127.0.0.1"
_LARGEST_REQUEST_BYTES = 32_000_000
_SHUTDOWN_S = 0.2  # for answers under way; what hangs is cut off
_BEGAN_S = web.RequestKey("began_s", float)
_WIRE = web.RequestKey("wire", Wire)
_WIRES: tuple[Wire, ...] = (OpenAIWire(), AnthropicWire(), ConverseWire(), TitanWire())
_OPENAI = _WIRES[0]
_ELSEWHERE = "http://elsewhere.invalid/v1/chat/completions"


class RecordedLLM:
    """A vendor on a loopback port that speaks every wire, as an asynchronous context manager.

    Parameters
    ----------
    recording
        What it knows.
    api_key
        The only accepted key; `None` accepts any that is not empty.
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
    def address(self) -> str:
        """The address to give to a client of Anthropic or Bedrock."""
        return f"http://{_HOST}:{self.port}"

    @property
    def base_url(self) -> str:
        """The address to give to an OpenAI client."""
        return f"{self.address}/v1"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=_LARGEST_REQUEST_BYTES)
        for wire in _WIRES:
            app.router.add_post(wire.path, partial(self._ask, wire))
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

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _stamp(self, request: web.Request, response: web.StreamResponse) -> None:
        self._requests += 1
        header = request.get(_WIRE, _OPENAI).request_id_header
        response.headers[header] = f"req-{self._requests:08d}"
        began_s = request.get(_BEGAN_S, time.perf_counter())
        response.headers["openai-processing-ms"] = str(round((time.perf_counter() - began_s) * 1e3))

    async def _ask(self, wire: Wire, http: web.Request) -> web.StreamResponse:
        http[_BEGAN_S], http[_WIRE] = time.perf_counter(), wire
        if (refused := self._unauthorized(wire, http)) is not None:
            return refused
        try:
            asked = wire.read(http, await http.read())
        except RequestError as exc:
            return wire.trouble(Trouble.UNREADABLE, str(exc))
        outcome = self._find(wire, asked)
        if isinstance(outcome, web.Response):
            return outcome
        return await self._answer(wire, http, self._known(asked), outcome)

    async def _answer(
        self, wire: Wire, http: web.Request, request: ChatRequest, outcome: Outcome
    ) -> web.StreamResponse:
        fault = self._faults(request)
        charged = fault is None or fault in CHARGED
        self.ledger.book(request, fault=fault, charged=charged, cost_usd=outcome.cost_usd)
        if charged:
            await asyncio.sleep(self._latency.of(outcome, request.identity))
        answer = wire.answer(request, outcome, fault)
        if fault is None:
            return web.json_response(answer)
        misdeed = Misdeed(wire, http, answer, self._retry_after_s, self._redirect_to)
        return await misbehave(fault, misdeed)

    def _unauthorized(self, wire: Wire, http: web.Request) -> web.Response | None:
        given = wire.credential(http)
        known = given if self._api_key is None else self._api_key.get_secret_value()
        if given and hmac.compare_digest(given.encode(), known.encode()):
            return None
        return wire.trouble(Trouble.UNAUTHORIZED, "Incorrect or missing API key.")

    def _find(self, wire: Wire, asked: Asked) -> Outcome | web.Response:
        model, text = asked.model, asked.text
        if model not in self._recording.models:
            message = f"The model {model!r} is not in this recording."
            return wire.trouble(Trouble.UNKNOWN_MODEL, message)
        outcome = (self._recording.outcomes(text) or {}).get(model)
        if outcome is None:
            message = f"No answer of {model!r} to this text was recorded ({len(text)} characters)."
            return wire.trouble(Trouble.NOT_RECORDED, message)
        return outcome

    def _known(self, asked: Asked) -> ChatRequest:
        key, model = asked.idempotency_key, asked.model
        digest = hashlib.sha256(asked.text.encode("utf-8", "replace")).hexdigest()
        number = self.ledger.number(key, model, digest)
        return ChatRequest(model, asked.text, digest, key, number)

    async def _models(self, http: web.Request) -> web.Response:
        if (refused := self._unauthorized(_OPENAI, http)) is not None:
            return refused
        return web.json_response(models(self._recording.models))

    async def _ledger(self, _http: web.Request) -> web.Response:
        summary: dict[str, Any] = self.ledger.summary()
        return web.json_response(summary)
