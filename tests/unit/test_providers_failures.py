"""From statuses, words and bodies to kinds of failure."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metallm_stream.providers import (
    Answer,
    ProviderFailure,
    ProviderSettings,
    anthropic_reply,
    bedrock_converse,
    bedrock_titan,
)
from metallm_stream.providers.http_failures import classify, retry_after_s
from metallm_stream.providers.openai_reply import read_reply

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
BILLING = "https://platform.openai.com/account/billing to add a payment method."
TOO_LARGE = "Request too large for m in organization o on tokens per"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "retriable"),
    [
        (400, None, "temperature must be a number", "bad_request", False),
        (400, "context_length_exceeded", "", "context_too_long", False),
        (400, None, "Prompt is too long: 9000 tokens", "context_too_long", False),
        (400, None, "The input token count (9) exceeds the maximum", "context_too_long", False),
        (400, None, "This model's maximum prompt length is 8", "context_too_long", False),
        (400, None, "Range of input length should be [1, 8]", "context_too_long", False),
        (413, None, "", "context_too_long", False),
        (400, None, "input length and max_tokens exceed context limit", "context_too_long", False),
        (429, None, "Too many tokens, please wait", "rate_limited", True),
        (400, "content_filter", "", "refused", False),
        (403, None, "Your input was flagged by moderation", "refused", False),
        (403, None, "Country not supported", "authentication", False),
        (401, None, "", "authentication", False),
        (402, None, "Insufficient credits", "authentication", False),
        (404, "model_not_found", "", "unsupported", False),
        (400, "unsupported_parameter", "", "unsupported", False),
        (429, "rate_limit_exceeded", f"{TOO_LARGE} min (TPM): Limit 9", "unsupported", False),
        (413, "rate_limit_exceeded", f"{TOO_LARGE} minute (TPM): Limit 9", "unsupported", False),
        (400, None, "max_tokens is too large: 9. It supports at most 8", "unsupported", False),
        (400, None, "max_completion_tokens is too large: 9", "unsupported", False),
        (400, None, "max_tokens: 9 > 8, which is the maximum allowed", "unsupported", False),
        (400, None, "The maximum tokens you requested exceeds the model", "unsupported", False),
        (400, None, "the valid range of max_tokens is [1, 8192]", "unsupported", False),
        (400, None, "`max_tokens` must be less than or equal to `8192`", "unsupported", False),
        (400, None, "max_tokens or model output limit was reached", "unsupported", False),
        (400, None, "#/maxTokenCount: 9000 is not less or equal to 8192", "unsupported", False),
        (400, None, "max_tokens must be at least 1", "bad_request", False),
        (400, None, "Your credit balance is too low to access the API", "authentication", False),
        (400, None, "You have reached your specified API usage limits", "authentication", False),
        (400, None, "API key not valid. Please pass a valid API key.", "authentication", False),
        (400, None, "Incorrect API key provided: x***y", "authentication", False),
        (400, None, "Error code: 400 - API key expired. Renew it.", "authentication", False),
        (400, None, "No number: {'content': 'invalid api key'}", "bad_request", False),
        (422, "x", "Your prompt 'API key not valid' is odd", "bad_request", False),
        (400, None, "The provided model identifier is invalid.", "unsupported", False),
        (400, None, "Invalid model name passed in model=x", "unsupported", False),
        (400, None, "x/y is not a valid model ID", "unsupported", False),
        (400, None, "Model Not Exist", "unsupported", False),
        (429, "ThrottlingException", "Too many tokens per day, wait", "rate_limited", False),
        (429, None, "on tokens per day (TPD). Try again in 6m0s", "rate_limited", True),
        (429, None, "Your team has used all available credits", "rate_limited", False),
        (408, None, "", "timeout", True),
        (429, None, "Slow down", "rate_limited", True),
        (424, "ModelErrorException", "", "server_error", True),
        (429, "insufficient_quota", "", "rate_limited", False),
        (429, None, "Check your plan and billing details.", "rate_limited", False),
        (429, None, "Check your plan and billing. Please retry in 34.1s", "rate_limited", True),
        (429, "rate_limit_exceeded", f"Limit 3. Visit {BILLING}", "rate_limited", True),
        (500, None, "maximum context length", "server_error", True),
        (503, None, "", "server_error", True),
        (501, None, "", "server_error", False),
        (307, None, "", "connection", False),
        (199, None, "", "malformed_answer", True),
    ],
)
def test_a_status_and_its_words_decide_the_kind(
    status: int,
    code: str | None,
    message: str,
    kind: str,
    retriable: bool,  # noqa: FBT001
) -> None:
    """Each kind of trouble is told apart, and what can only fail again is final."""
    assert classify(status, code=code, message=message) == (kind, retriable)


@given(status=st.integers(100, 999), code=st.none() | st.text(), message=st.text())
def test_any_status_has_a_kind(status: int, code: str | None, message: str) -> None:
    """No status and no words are beyond classification; refusals of the request are final."""
    kind, retriable = classify(status, code=code, message=message)
    if kind in {"authentication", "bad_request", "unsupported", "context_too_long", "refused"}:
        assert not retriable


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "3", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(
    headers: dict[str, str], expected_s: float | None
) -> None:
    """Seconds, milliseconds and dates are understood; nonsense is no wish."""
    assert retry_after_s(headers, NOW) == expected_s


@given(text=st.text())
def test_no_retry_after_breaks_the_reading(text: str) -> None:
    """Whatever stands in the header, the wait is absent or not negative."""
    wait_s = retry_after_s({"retry-after": text, "retry-after-ms": text}, NOW)
    assert wait_s is None or wait_s >= 0


def read(body: object) -> Answer:
    return read_reply(
        json.dumps(body).encode(), content_type="application/json", request_id="req-1"
    )


@pytest.mark.parametrize(
    ("usage", "output_tokens"),
    [
        ({"completion_tokens": 9, "total_tokens": 41}, 9),
        ({"completion_tokens": 9, "total_tokens": 135, "thought": 94}, 103),
        ({"completion_tokens": 103, "total_tokens": 135, "thought": 94}, 103),
        ({"completion_tokens": 9, "total_tokens": 135}, 103),
        ({"completion_tokens": 9, "total_tokens": 135, "cached": 94}, 9),
        ({"completion_tokens": 9, "total_tokens": 135, "cached": 5, "thought": 94}, 103),
        ({"completion_tokens": 9, "total_tokens": 3}, 9),
        ({"total_tokens": 135}, None),
    ],
)
def test_thought_that_is_told_beside_the_answer_is_output(
    usage: dict[str, int], output_tokens: int | None
) -> None:
    """Told in the total and apart (xAI), or in the total alone (Gemini); what is cached is not."""
    usage = {"prompt_tokens": 32} | usage
    details = {
        "completion_tokens_details": {"reasoning_tokens": usage.pop("thought", None)},
        "prompt_tokens_details": {"cached_tokens": usage.pop("cached", None)},
    }
    answer = read({"choices": [{"message": {"content": "hi"}}], "usage": usage | details})
    assert answer.output_tokens == output_tokens


def test_a_reply_with_odd_but_readable_parts_is_an_answer() -> None:
    """Unknown finish reasons, absent usage and further fields do not cost the answer."""
    body = {"choices": [{"finish_reason": "eos", "message": {"content": "hi", "x": 1}}], "y": []}
    answer = read(body)
    assert (answer.text, answer.finish_reason, answer.input_tokens) == ("hi", "eos", None)


def test_ones_own_upstream_key_adds_its_cost_to_the_fee() -> None:
    """Where the host passes on our key, the upstream's charge is part of the cost."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.01, "is_byok": True}
    usage["cost_details"] = {"upstream_inference_cost": 0.2}
    body = {"choices": [{"message": {"content": "hi"}}], "usage": usage}
    assert read(body).cost_usd == pytest.approx(0.21)
    assert read(body | {"usage": usage | {"is_byok": False}}).cost_usd == pytest.approx(0.01)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [{}]},
        {"choices": [{"message": {"content": None}}]},
        {"choices": [{"message": {"content": ["no", "text"]}}]},
        {"choices": [{"message": {"content": "hi"}}], "error": "upstream is down"},
        {"choices": [{"message": {"content": "hi"}, "error": {"message": "cut", "code": "x"}}]},
    ],
)
def test_a_reply_without_usable_text_is_malformed(body: object) -> None:
    """Each is a malformed answer that keeps the request's identity where it has got that far."""
    with pytest.raises(ProviderFailure) as caught:
        read(body)
    assert (caught.value.kind, caught.value.retriable) == ("malformed_answer", True)
    assert caught.value.request_id == "req-1"


READERS = {
    "openai": lambda raw: read_reply(raw, content_type="", request_id=None),
    "anthropic": lambda raw: anthropic_reply.read_reply(raw, content_type="", request_id=None),
    "converse": lambda raw: bedrock_converse.read_reply(raw, "", None),
    "titan": lambda raw: bedrock_titan.read_reply(raw, "", None),
}


def ending(wire: str, raw: bytes) -> Answer | ProviderFailure:
    try:
        return READERS[wire](raw)
    except ProviderFailure as failure:
        return failure


@pytest.mark.parametrize(
    "usage", [[], 5, {"prompt_tokens": -1}, {"prompt_tokens": 12.5}, {"cost": -0.001}]
)
def test_figures_that_cannot_be_read_do_not_cost_the_answer(usage: object) -> None:
    """It was paid for; what it has cost, nobody knows."""
    answer = read({"choices": [{"message": {"content": "hi"}}], "usage": usage})
    assert (answer.text, answer.input_tokens, answer.cost_usd) == ("hi", None, None)


CHARGED = {
    "openai": {"choices": 5, "usage": {"prompt_tokens": 9, "completion_tokens": 1}},
    "anthropic": {"content": 5, "usage": {"input_tokens": 9, "output_tokens": 1}},
    "converse": {"output": 5, "usage": {"inputTokens": 9, "outputTokens": 1}},
    "titan": {"results": 5, "inputTextTokenCount": 9},
}


@pytest.mark.parametrize("wire", sorted(READERS))
def test_an_answer_of_another_shape_keeps_what_it_was_charged(wire: str) -> None:
    """The vendor was paid for it all the same."""
    failure = ending(wire, json.dumps(CHARGED[wire]).encode())
    assert isinstance(failure, ProviderFailure)
    assert failure.kind == "malformed_answer"
    assert failure.billed is not None
    assert failure.billed.input_tokens == 9


@pytest.mark.parametrize("wire", sorted(READERS))
@given(raw=JSON.map(lambda value: json.dumps(value).encode()) | st.binary())
def test_any_body_is_an_answer_or_a_failure(wire: str, raw: bytes) -> None:
    """No JSON value and no bytes make a reader raise anything but `ProviderFailure`."""
    assert isinstance(ending(wire, raw), Answer | ProviderFailure)


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "ftp://host/v1"},
        {"base_url": "host/v1"},
        {"base_url": "https://user:word@host/v1"},
        {"base_url": "https://host/v1?key=word"},
        {"api_key": ""},
        {"api_key": "ключ"},
        {"api_key": "key\nwith lines"},
        {"headers": {"X-Key": "a\r\nb"}},
        {"headers": {"X-Key\r\nX-Other": "a"}},
        {"headers": {"Schl\u00fcssel": "a"}},
        {"name": "Not A Name"},
        {"max_connections": 0},
        {"max_conections": 5},
    ],
)
def test_settings_that_cannot_work_are_refused_at_start(wrong: dict[str, object]) -> None:
    """Wrong addresses, keys that no header can carry and misspelt options fail before any call."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ProviderSettings.model_validate({"name": "vendor", "api_key": "key"} | wrong)
