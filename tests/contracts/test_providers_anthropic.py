"""Anthropic's wire from both sides: what our provider sends and reads, what the server answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from anthropic import (
    APIStatusError,
    AsyncAnthropic,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    PaymentRequiredError,
    RateLimitError,
)
from anthropic.types import Message
from anthropic.types.shared import ErrorResponse

from metallm_stream.embedded.recorded_llm import Fault, RecordedLLM, Recording
from metallm_stream.events import Generation
from metallm_stream.providers import Answer, ProviderFailure
from tests.tap import tapped
from tests.vendors import ARM, HEADER_VALUE, KEY, MESSAGES, OUTCOME, TEXT

USAGE = {"input_tokens": 9, "output_tokens": 1}
ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": ARM.model,
    "content": [{"type": "text", "text": "yes"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": USAGE,
}


def ask(answer: Any, **options: Any) -> Answer:
    """One question to a host that answers this."""

    async def run() -> Answer:
        async with tapped("anthropic", answer, **options) as (_tap, provider):
            return await provider.complete(ARM, MESSAGES, None, timeout_s=60, idempotency_key="k")

    return asyncio.run(run())


def fail(answer: Any, **options: Any) -> ProviderFailure:
    """The failure that this answer is."""
    with pytest.raises(ProviderFailure) as caught:
        ask(answer, **options)
    return caught.value


# --- What goes out -------------------------------------------------------------------------------


def test_parameters_are_sent_by_the_vendors_names() -> None:
    """System text and limits have fields of their own; what the API lacks is left out."""
    arm = ARM.model_copy(update={"max_output_tokens": 64})
    wish = Generation(temperature=0.0, top_p=0.9, max_output_tokens=100, stop=("END",), seed=7)

    async def run() -> None:
        async with tapped("anthropic", ANSWER) as (tap, provider):
            for model, generation in ((arm, wish), (arm, None), (ARM, None)):
                await provider.complete(
                    model, MESSAGES, generation, timeout_s=60, idempotency_key="k1"
                )
        common = {"model": ARM.model, "messages": [MESSAGES[1]], "system": "Be brief."}
        assert tap.bodies == [
            common | {"max_tokens": 64, "stop_sequences": ["END"]},
            common | {"max_tokens": 64},
            common | {"max_tokens": 8_192},
        ]
        assert {request.path for request in tap.requests} == {"/v1/messages"}
        assert tap.headers[0]["Idempotency-Key"] == "k1"
        assert tap.headers[0]["anthropic-version"]

    asyncio.run(run())


def test_only_what_the_settings_say_leaves_for_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the SDK would take from Anthropic's variables is not sent to another host."""
    for name in ("API_KEY", "AUTH_TOKEN", "BASE_URL", "PROFILE"):
        monkeypatch.setenv(f"ANTHROPIC_{name}", "http://planted.invalid/env")
    monkeypatch.setenv(
        "ANTHROPIC_CUSTOM_HEADERS", "X-Own: planted.invalid\nX-Api-Key: planted.invalid"
    )

    async def run() -> None:
        async with tapped("anthropic", ANSWER, own={"X-Team": HEADER_VALUE}) as (tap, provider):
            await provider.complete(ARM, MESSAGES, None, timeout_s=60, idempotency_key="k")
        sent = tap.headers[0]
        assert not [value for value in sent.values() if "planted.invalid" in value]
        assert (sent["Authorization"], sent["X-Team"]) == (f"Bearer {KEY}", HEADER_VALUE)

    asyncio.run(run())


# --- What is read --------------------------------------------------------------------------------


def test_tokens_are_told_apart() -> None:
    """Cache reads and writes are counted into the input, thinking is a part of the output."""
    usage = USAGE | {
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 1},
    }
    answer = ask(ANSWER | {"usage": usage}, headers={"request-id": "req_7"})
    assert (answer.input_tokens, answer.output_tokens) == (129, 1)
    assert (answer.cached_input_tokens, answer.cache_write_tokens) == (100, 20)
    assert (answer.reasoning_tokens, answer.cost_usd) == (1, None)
    assert answer.request_id == "req_7"


def test_text_is_that_of_the_text_blocks() -> None:
    """Thinking is not part of the answer; several text blocks are one text."""
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "y"},
        {"type": "text", "text": "es"},
    ]
    assert ask(ANSWER | {"content": blocks}).text == "yes"


@pytest.mark.parametrize(
    ("said", "normal"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("pause_turn", "pause_turn"),
    ],
)
def test_stop_reasons_are_normalised(said: str, normal: str) -> None:
    """The reasons that other wires have, too, get one word; others stay as they are."""
    assert ask(ANSWER | {"stop_reason": said}).finish_reason == normal


@pytest.mark.parametrize(
    ("usage", "why"),
    [
        ({"service_tier": "standard", "speed": "standard"}, None),
        ({"service_tier": "batch"}, "batch"),
        ({"service_tier": "priority"}, "priority"),
        ({"speed": "fast"}, "fast"),
        ({"inference_geo": "us"}, "inference in us"),
        ({"cache_creation": {"ephemeral_1h_input_tokens": 5}}, "a cache for an hour"),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 5}}, None),
    ],
)
def test_what_is_not_charged_by_the_list_says_so(usage: dict[str, Any], why: str | None) -> None:
    """Another tier or speed has other prices."""
    assert ask(ANSWER | {"usage": USAGE | usage}).off_list == why


def test_a_refusal_is_told_in_the_vendors_words() -> None:
    """The explanation is the message, and what was charged is kept."""
    details = {"type": "refusal", "category": "bio", "explanation": "Not this."}
    failure = fail(ANSWER | {"content": [], "stop_reason": "refusal", "stop_details": details})
    assert (failure.kind, failure.message) == ("refused", "Not this.")
    assert failure.billed is not None
    assert failure.billed.input_tokens == 9


def test_an_answer_that_was_all_thinking_is_not_asked_for_again() -> None:
    """A limit that leaves no room for text would leave none the next time."""
    failure = fail(ANSWER | {"content": [], "stop_reason": "max_tokens"})
    assert (failure.kind, failure.retriable) == ("unsupported", False)


def test_an_error_of_another_shape_is_told_as_it_came() -> None:
    """Its message need be no text."""
    failure = fail({"error": {"type": "api_error", "message": ["x"]}}, status=500)
    assert (failure.kind, failure.message) == ("server_error", "['x']")


ERRORS = [
    (400, "invalid_request_error", "max_tokens: field required", "bad_request", False),
    (400, "invalid_request_error", "prompt is too long: 9 tokens > 8", "context_too_long", False),
    (
        400,
        "invalid_request_error",
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
        "context_too_long",
        False,
    ),
    (401, "authentication_error", "invalid x-api-key", "authentication", False),
    (402, "billing_error", "Your credit balance is too low", "authentication", False),
    (403, "permission_error", "no access to this model", "authentication", False),
    (404, "not_found_error", "model: claude-none", "unsupported", False),
    (413, "request_too_large", "Request exceeds the maximum size", "context_too_long", False),
    (429, "rate_limit_error", "Number of request tokens has exceeded", "rate_limited", True),
    (500, "api_error", "Internal server error", "server_error", True),
    (504, "timeout_error", "took too long", "server_error", True),
    (529, "overloaded_error", "Overloaded", "server_error", True),
]


@pytest.mark.parametrize(("status", "kind", "message", "expected", "retriable"), ERRORS)
def test_each_error_of_the_vendor_has_a_kind(
    status: int,
    kind: str,
    message: str,
    expected: str,
    retriable: bool,  # noqa: FBT001
) -> None:
    """As a status and inside a 200, an error is of the same kind, with the vendor's words."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    if kind != "request_too_large":  # the SDK has no type for it: it comes from a gateway
        ErrorResponse.model_validate(body, strict=True)
    headers = {"retry-after": "7", "anthropic-ratelimit-requests-remaining": "0"}
    failure = fail(body, status=status, headers=headers)
    assert (failure.kind, failure.retriable) == (expected, retriable)
    assert (failure.message, failure.retry_after_s) == (message, 7.0)
    inside = fail(body)
    assert (inside.kind, inside.retriable) == (expected, retriable)


# --- The local server against the SDK's own types ------------------------------------------------


def exchange(action: Callable[[AsyncAnthropic], Awaitable[Any]], fault: Fault | None = None) -> Any:
    """One action of a bare SDK client against the recorded LLM."""

    async def run() -> Any:
        recording = Recording({TEXT: {ARM.model: OUTCOME}})
        async with (
            RecordedLLM(recording, faults=lambda _request: fault) as server,
            AsyncAnthropic(api_key=KEY, base_url=server.address, max_retries=0) as client,
        ):
            return await action(client)

    return asyncio.run(run())


async def create_raw(client: AsyncAnthropic) -> dict[str, Any]:
    raw = await client.messages.with_raw_response.create(
        model=ARM.model, max_tokens=16, messages=[{"role": "user", "content": TEXT}]
    )
    assert raw.request_id
    return json.loads(await raw.read())


@pytest.mark.parametrize("fault", [None, Fault.EMPTY_CHOICES, Fault.REFUSAL])
def test_messages_are_what_the_sdk_declares(fault: Fault | None) -> None:
    """Strict validation by the SDK's model passes, and it declares every field."""
    message = Message.model_validate(exchange(create_raw, fault), strict=True)
    assert (message.model_extra, message.usage.model_extra) == ({}, {})
    assert (message.model, message.usage.input_tokens) == (ARM.model, 9)
    assert [block.model_extra for block in message.content] == ([{}] if fault is None else [])


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.SERVER_ERROR, InternalServerError),
        (Fault.RATE_LIMITED, RateLimitError),
        (Fault.OUT_OF_QUOTA, PaymentRequiredError),
        (Fault.UNAUTHORIZED, AuthenticationError),
        (Fault.CONTEXT_TOO_LONG, BadRequestError),
    ],
)
def test_errors_are_what_the_sdk_declares(fault: Fault, error: type[APIStatusError]) -> None:
    """The SDK raises its own class for each, and the body is its error response."""

    async def action(client: AsyncAnthropic) -> APIStatusError:
        with pytest.raises(error) as caught:
            await create_raw(client)
        return caught.value

    raised = exchange(action, fault)
    assert raised.request_id
    said = ErrorResponse.model_validate(raised.body, strict=True)
    assert (said.model_extra, said.error.type) == ({}, raised.type)
    if fault is Fault.RATE_LIMITED:
        assert raised.response.headers["anthropic-ratelimit-requests-remaining"] == "0"


def test_the_server_refuses_what_the_api_refuses() -> None:
    """A temperature is a bad request, as at the vendor."""

    async def action(client: AsyncAnthropic) -> str:
        with pytest.raises(BadRequestError) as caught:
            await client.messages.create(
                model=ARM.model,
                max_tokens=16,
                messages=[{"role": "user", "content": TEXT}],
                extra_body={"temperature": 1.0},
            )
        return str(caught.value)

    assert "temperature" in exchange(action)


def test_what_is_left_of_the_rate_limits_is_read() -> None:
    """From the headers of an answer as from those of a refusal."""
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-03-01T08:00:00Z",
    }
    limits = ask(ANSWER, headers=headers).limits
    assert limits is not None
    assert limits.requests is not None
    assert (limits.requests.limit, limits.requests.remaining) == (50.0, 49.0)
