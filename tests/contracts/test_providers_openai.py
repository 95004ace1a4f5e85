"""The OpenAI wire from both sides: what our provider sends, and what the recorded LLM answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI, AuthenticationError, RateLimitError
from openai.types import ErrorObject
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from metallm_stream.embedded.recorded_llm import Fault, Outcome, RecordedLLM, Recording
from metallm_stream.events import Generation
from metallm_stream.providers import ProviderFailure, ProviderSettings, open_provider
from metallm_stream.providers.openai_reply import read_reply
from tests.tap import tapped
from tests.vendors import ARM, HEADER_VALUE, KEY, MESSAGES, OUTCOME, TEXT

# --- What goes out on the OpenAI wire ------------------------------------------------------------


ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}}]}


def test_generation_parameters_are_sent_by_the_vendors_names() -> None:
    """Given parameters go out under their names, others not at all; the arm's limit caps tokens."""
    arm = ARM.model_copy(update={"max_output_tokens": 64})
    generation = Generation(
        temperature=0.0, top_p=0.9, max_output_tokens=100, stop=("END",), seed=7
    )

    async def run() -> None:
        async with tapped("openai", ANSWER) as (tap, provider):
            for wish in (generation, None):
                await provider.complete(arm, MESSAGES, wish, timeout_s=60, idempotency_key="k1")
        common = {"model": ARM.model, "messages": list(MESSAGES)}
        sent = {"temperature": 0.0, "top_p": 0.9, "max_tokens": 64, "stop": ["END"], "seed": 7}
        assert tap.bodies == [common | sent, common]
        assert tap.headers[0]["Idempotency-Key"] == "k1"

    asyncio.run(run())


def test_only_what_the_settings_say_leaves_for_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the SDK would take from OpenAI's variables is not sent to another host."""
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "http://planted.invalid/env")
    monkeypatch.setenv(
        "OPENAI_CUSTOM_HEADERS", "X-Own: planted.invalid\nAuthorization: Bearer planted.invalid"
    )

    async def run() -> None:
        async with tapped("openai", ANSWER, own={"X-Team": HEADER_VALUE}) as (tap, provider):
            answer = await provider.complete(ARM, MESSAGES, None, timeout_s=60, idempotency_key="k")
        assert answer.text == "yes"
        assert (answer.input_tokens, answer.cost_usd) == (None, None)
        sent = tap.headers[0]
        assert not [value for value in sent.values() if "planted.invalid" in value]
        assert (sent["Authorization"], sent["X-Team"]) == (f"Bearer {KEY}", HEADER_VALUE)

    asyncio.run(run())


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Model x does not exist", "type": "e"}},
        {"message": "Model x does not exist", "object": "error"},
        [{"error": {"code": 400, "message": "Model x does not exist"}}],
        {"code": "invalid", "error": "Model x does not exist"},
        {"detail": "Model x does not exist"},
        {"detail": [{"loc": ["body"], "msg": "Model x does not exist", "input": "y"}]},
    ],
)
def test_a_hosts_words_are_read_wherever_they_are(body: Any) -> None:
    """As OpenAI has them, in a list (Gemini), as the error itself (xAI) or as details (FastAPI)."""

    async def run() -> None:
        async with tapped("openai", body, status=400) as (_tap, provider):
            await provider.complete(ARM, MESSAGES, None, timeout_s=60, idempotency_key="k1")

    with pytest.raises(ProviderFailure) as caught:
        asyncio.run(run())
    assert caught.value.kind == "unsupported"
    assert caught.value.message == "Error code: 400 - Model x does not exist"


@pytest.mark.parametrize(
    "body", [None, [], "<html>no</html>", {"error": {"code": 9}}, [[[[[["x"]]]]]]]
)
def test_a_host_without_words_is_told_by_its_status(body: Any) -> None:
    """Nothing else of its page is repeated."""

    async def run() -> None:
        async with tapped("openai", body, status=400) as (_tap, provider):
            await provider.complete(ARM, MESSAGES, None, timeout_s=60, idempotency_key="k1")

    with pytest.raises(ProviderFailure) as caught:
        asyncio.run(run())
    assert (caught.value.kind, caught.value.message) == ("bad_request", "Error code: 400")


@pytest.mark.parametrize("digits", [4, 4_300, 4_301])
@pytest.mark.parametrize("quote", ["", '"'])
def test_an_error_with_a_code_beyond_reason_is_a_malformed_answer(digits: int, quote: str) -> None:
    """However many digits it has."""
    body = f'{{"error": {{"code": {quote}{"4" * digits}{quote}}}}}'.encode()
    with pytest.raises(ProviderFailure) as caught:
        read_reply(body, content_type="application/json", request_id=None)
    assert (caught.value.kind, caught.value.retriable) == ("malformed_answer", True)


def test_no_reported_cost_is_no_cost() -> None:
    """A host that reports no cost leaves the cost unknown, not zero."""

    async def run() -> None:
        recording = Recording({TEXT: {ARM.model: Outcome(answer="4")}})
        async with RecordedLLM(recording) as server:
            settings = ProviderSettings(name="vendor", base_url=server.base_url, api_key=KEY)
            provider = open_provider(settings)
            answer = await provider.complete(ARM, MESSAGES, None, timeout_s=60, idempotency_key="k")
            await provider.close()
        assert answer.cost_usd is None

    asyncio.run(run())


# --- The local server against the SDK's own types ------------------------------------------------


def exchange(action: Callable[[AsyncOpenAI], Awaitable[Any]], fault: Fault | None = None) -> Any:
    """One action of a bare SDK client against the recorded LLM."""

    async def run() -> Any:
        recording = Recording({TEXT: {ARM.model: OUTCOME}})
        async with (
            RecordedLLM(recording, faults=lambda _request: fault) as server,
            AsyncOpenAI(api_key=KEY, base_url=server.base_url, max_retries=0) as client,
        ):
            return await action(client)

    return asyncio.run(run())


def undeclared(model: BaseModel, path: str = "") -> set[str]:
    """Paths of the fields that the model's class does not declare."""
    found = {f"{path}{name}" for name in model.model_extra or {}}
    for name, value in model:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, BaseModel):
                found |= undeclared(one, f"{path}{name}.")
    return found


async def complete_raw(client: AsyncOpenAI) -> dict[str, Any]:
    raw = await client.chat.completions.with_raw_response.create(
        model=ARM.model, messages=[{"role": "user", "content": TEXT}]
    )
    assert raw.headers["x-request-id"]
    assert int(raw.headers["openai-processing-ms"]) >= 0
    return json.loads(raw.content)


@pytest.mark.parametrize("fault", [None, Fault.EMPTY_CHOICES, Fault.CONTENT_FILTER, Fault.REFUSAL])
def test_completions_are_what_the_sdk_declares(fault: Fault | None) -> None:
    """Strict validation by the SDK's model passes; the only further field is `usage.cost`."""
    body = exchange(complete_raw, fault)
    completion = ChatCompletion.model_validate(body, strict=True)
    assert undeclared(completion) == {"usage.cost"}
    assert completion.usage is not None
    assert completion.usage.total_tokens == 10
    assert completion.model == ARM.model


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        (Fault.SERVER_ERROR, 500, APIStatusError),
        (Fault.RATE_LIMITED, 429, RateLimitError),
        (Fault.OUT_OF_QUOTA, 429, RateLimitError),
        (Fault.UNAUTHORIZED, 401, AuthenticationError),
        (Fault.CONTEXT_TOO_LONG, 400, APIStatusError),
    ],
)
def test_errors_are_what_the_sdk_declares(
    fault: Fault, status: int, error: type[APIStatusError]
) -> None:
    """The SDK raises its own class for each, and the body is its error object."""

    async def action(client: AsyncOpenAI) -> APIStatusError:
        with pytest.raises(error) as caught:
            await complete_raw(client)
        return caught.value

    raised = exchange(action, fault)
    assert raised.status_code == status
    assert raised.request_id
    assert undeclared(ErrorObject.model_validate(raised.body, strict=True)) == set()
    if fault is Fault.RATE_LIMITED:
        assert int(raised.response.headers["retry-after"]) == 1


def test_the_list_of_models_is_what_the_sdk_declares() -> None:
    """`models.list` gives the recorded models."""

    async def action(client: AsyncOpenAI) -> list[str]:
        return [model.id async for model in client.models.list()]

    assert exchange(action) == [ARM.model]
