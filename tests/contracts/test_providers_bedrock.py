"""Bedrock's wire from both sides: what our provider sends and reads, what the server answers."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import traceback
from collections.abc import Mapping
from typing import Any

import boto3
import botocore
import botocore.session
import pytest
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

from metallm_stream.embedded.recorded_llm import Fault, RecordedLLM, Recording
from metallm_stream.errors import ConfigurationError, Unreachable
from metallm_stream.events import Generation, Model
from metallm_stream.providers import Answer, ProviderFailure, ProviderSettings, open_provider
from tests.tap import Tap, tapped
from tests.vendors import HEADER_VALUE, KEY, MESSAGES, OUTCOME, TEXT

LLAMA = Model(arm="llama", provider="v", model="us.meta.llama3-1-8b-instruct-v1:0")
CLAUDE = Model(arm="claude", provider="v", model="anthropic.claude-3-5-sonnet-20240620-v1:0")
TITAN = Model(arm="titan", provider="v", model="amazon.titan-text-express-v1")
USAGE = {"inputTokens": 9, "outputTokens": 1, "totalTokens": 10}
CONVERSED = {
    "output": {"message": {"role": "assistant", "content": [{"text": "yes"}]}},
    "stopReason": "end_turn",
    "usage": USAGE,
    "metrics": {"latencyMs": 3},
}
INVOKED = {
    "inputTextTokenCount": 9,
    "results": [{"tokenCount": 1, "outputText": "\nyes", "completionReason": "FINISHED"}],
}
ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = "AKIAPLANTED7F3A", "planted/secret+key", "planted//token=="
BEDROCK = botocore.session.get_session().get_service_model("bedrock-runtime")


def ask(
    model: Model, answer: Any, wish: Generation | None = None, **options: Any
) -> tuple[Answer, Tap]:
    """One question to a host that answers this, and what the host was sent."""

    async def run() -> tuple[Answer, Tap]:
        async with tapped("bedrock", answer, **options) as (tap, provider):
            said = await provider.complete(
                model, MESSAGES, wish, timeout_s=60, idempotency_key="k1"
            )
            return said, tap

    return asyncio.run(run())


def fail(model: Model, answer: Any, **options: Any) -> ProviderFailure:
    """The failure that this answer is."""
    with pytest.raises(ProviderFailure) as caught:
        ask(model, answer, **options)
    return caught.value


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Credentials in the usual variables, and nothing else of AWS."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION_TOKEN)
    return monkeypatch


# --- What goes out -------------------------------------------------------------------------------

WISH = Generation(temperature=1.5, top_p=0.9, max_output_tokens=100, stop=("END",), seed=7)


def test_converse_is_sent_the_vendors_names() -> None:
    """System text has a field, temperature ends at 1, a seed is left out, the arm's limit caps."""
    _, tap = ask(LLAMA.model_copy(update={"max_output_tokens": 64}), CONVERSED, WISH)
    assert tap.requests[0].path == f"/model/{LLAMA.model}/converse"
    assert tap.bodies == [
        {
            "messages": [{"role": "user", "content": [{"text": TEXT}]}],
            "system": [{"text": "Be brief."}],
            "inferenceConfig": {
                "maxTokens": 64,
                "temperature": 1.0,
                "topP": 0.9,
                "stopSequences": ["END"],
            },
            "requestMetadata": {"idempotency-key": "k1"},
        }
    ]


def test_claude_is_sent_no_sampling_parameters() -> None:
    """Its newer models refuse them, as at Anthropic."""
    _, tap = ask(CLAUDE, CONVERSED, WISH)
    assert tap.bodies[0]["inferenceConfig"] == {"maxTokens": 100, "stopSequences": ["END"]}


def test_turns_of_one_side_are_one_turn() -> None:
    """Converse wants the sides to take turns; no word is lost."""
    said = [("user", "a"), ("user", "b"), ("assistant", "c"), ("user", "d")]
    turns = [{"role": role, "content": text} for role, text in said]

    async def run() -> Any:
        async with tapped("bedrock", CONVERSED) as (tap, provider):
            await provider.complete(LLAMA, turns, None, timeout_s=60, idempotency_key="k")
            return tap.bodies[0]["messages"]

    assert asyncio.run(run()) == [
        {"role": "user", "content": [{"text": "a"}, {"text": "b"}]},
        {"role": "assistant", "content": [{"text": "c"}]},
        {"role": "user", "content": [{"text": "d"}]},
    ]


def test_titan_is_sent_one_text() -> None:
    """The conversation in the form that Titan knows, parameters under its names."""
    answer, tap = ask(TITAN, INVOKED, WISH)
    assert (answer.text, answer.input_tokens, answer.output_tokens) == ("yes", 9, 1)
    assert tap.requests[0].path == f"/model/{TITAN.model}/invoke"
    assert tap.bodies == [
        {
            "inputText": f"Be brief.\n\nUser: {TEXT}\nBot:",
            "textGenerationConfig": {
                "maxTokenCount": 100,
                "temperature": 1.0,
                "topP": 0.9,
                "stopSequences": ["END"],
            },
        }
    ]


def signature(request: web.Request, address: str, body: bytes) -> str:
    """The signature that the request should have, as botocore reckons it from what arrived."""
    signed = re.findall(r"SignedHeaders=([^,]+)", request.headers["Authorization"])[0].split(";")
    headers = {name: request.headers[name] for name in signed}
    arrived = AWSRequest("POST", f"{address}{request.raw_path}", headers, body)
    arrived.context["timestamp"] = request.headers["X-Amz-Date"]
    auth = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY, SESSION_TOKEN), "bedrock", "eu-west-1")
    return auth.signature(auth.string_to_sign(arrived, auth.canonical_request(arrived)), arrived)


@pytest.mark.parametrize(("model", "answer"), [(LLAMA, CONVERSED), (TITAN, INVOKED)])
def test_what_arrives_is_what_was_signed(
    aws: pytest.MonkeyPatch, model: Model, answer: Mapping[str, Any]
) -> None:
    """Path, body and headers are signed with the variables' credentials and reach the host so."""
    del aws
    _, tap = ask(model, answer, api_key=None, region="eu-west-1", own={"X-Team": HEADER_VALUE})
    request = tap.requests[0]
    given = request.headers["Authorization"]
    assert f"Credential={ACCESS_KEY}/" in given
    assert given.endswith(f"Signature={signature(request, tap.address, tap.raw[0])}")
    assert request.headers["X-Amz-Security-Token"] == SESSION_TOKEN
    assert request.headers["X-Team"] == HEADER_VALUE


def test_the_variables_change_neither_host_nor_number_of_tries(aws: pytest.MonkeyPatch) -> None:
    """An endpoint for all of AWS is not followed, and boto3 does not retry."""
    aws.setenv("AWS_ENDPOINT_URL", "http://planted.invalid")
    aws.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://planted.invalid")
    aws.setenv("AWS_MAX_ATTEMPTS", "5")
    aws.setenv("AWS_RETRY_MODE", "standard")

    async def run() -> int:
        async with tapped(
            "bedrock", {"message": "no"}, status=503, api_key=None, region="eu-west-1"
        ) as (tap, provider):
            with pytest.raises(ProviderFailure):
                await provider.complete(LLAMA, MESSAGES, None, timeout_s=60, idempotency_key="k")
            return len(tap.requests)

    assert asyncio.run(run()) == 1


def test_without_an_address_the_regions_own_is_asked(aws: pytest.MonkeyPatch) -> None:
    """The host is Bedrock's of that region, over TLS."""
    aws.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    settings = ProviderSettings(name="v", wire="bedrock", region="eu-west-1")

    async def run() -> Any:
        provider = open_provider(settings)
        with pytest.raises(ProviderFailure) as caught:
            await provider.complete(LLAMA, MESSAGES, None, timeout_s=60, idempotency_key="k")
        await provider.close()
        return provider, caught.value

    provider, failure = asyncio.run(run())
    assert provider._client._boto.meta.endpoint_url == (
        "https://bedrock-runtime.eu-west-1.amazonaws.com"
    )
    assert (failure.kind, failure.retriable) == ("connection", True)  # the proxy is not there


def test_no_credentials_are_told_at_start(aws: pytest.MonkeyPatch) -> None:
    """With the ways out, before any call."""
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigurationError, match=r"AWS_ACCESS_KEY_ID.*API_KEY_ENV"):
        open_provider(ProviderSettings(name="v", wire="bedrock", region="eu-west-1"))


def test_whoever_gives_credentials_may_be_down_for_a_while(aws: pytest.MonkeyPatch) -> None:
    """Which is no error of the configuration, so that a supervisor goes on trying."""
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    aws.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/credentials")
    with pytest.raises(Unreachable, match="AWS credentials"):
        open_provider(ProviderSettings(name="v", wire="bedrock", region="eu-west-1"))


def test_awss_own_variable_of_an_api_key_is_enough(aws: pytest.MonkeyPatch) -> None:
    """It goes to no host without TLS, and is not told."""
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    aws.setenv("AWS_BEARER_TOKEN_BEDROCK", SESSION_TOKEN)
    failure = fail(LLAMA, CONVERSED, api_key=None, region="eu-west-1")
    assert (failure.kind, failure.retriable) == ("connection", False)
    assert "requires an HTTPS endpoint" in failure.message
    assert SESSION_TOKEN not in failure.message


def test_no_region_is_told_at_start(aws: pytest.MonkeyPatch) -> None:
    """With the setting that names one."""
    del aws
    with pytest.raises(ConfigurationError, match="METALLM_PROVIDERS__V__REGION"):
        open_provider(ProviderSettings(name="v", wire="bedrock"))


def test_the_region_may_come_from_awss_own_variable(aws: pytest.MonkeyPatch) -> None:
    """As for every tool of AWS."""
    aws.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    provider = open_provider(ProviderSettings(name="v", wire="bedrock"))
    assert provider._client._boto.meta.region_name == "ap-south-1"
    asyncio.run(provider.close())


# --- What is read --------------------------------------------------------------------------------


def test_tokens_are_told_apart() -> None:
    """Cache reads and writes are counted into the input."""
    usage = USAGE | {"cacheReadInputTokens": 100, "cacheWriteInputTokens": 20}
    answer, _ = ask(LLAMA, CONVERSED | {"usage": usage}, headers={"x-amzn-requestid": "r-7"})
    assert (answer.input_tokens, answer.output_tokens) == (129, 1)
    assert (answer.cached_input_tokens, answer.cache_write_tokens) == (100, 20)
    assert (answer.request_id, answer.cost_usd) == ("r-7", None)


@pytest.mark.parametrize(
    ("said", "normal"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
    ],
)
def test_stop_reasons_of_converse_are_normalised(said: str, normal: str) -> None:
    """The reasons that other wires have, too, get one word."""
    assert ask(LLAMA, CONVERSED | {"stopReason": said})[0].finish_reason == normal


@pytest.mark.parametrize(
    ("said", "normal"), [("FINISHED", "stop"), ("STOP_CRITERIA_MET", "stop"), ("LENGTH", "length")]
)
def test_completion_reasons_of_titan_are_normalised(said: str, normal: str) -> None:
    """The same words for Titan."""
    result = INVOKED["results"][0] | {"completionReason": said}
    assert ask(TITAN, INVOKED | {"results": [result]})[0].finish_reason == normal


@pytest.mark.parametrize(
    ("said", "kind", "retriable"),
    [
        ("guardrail_intervened", "refused", False),
        ("content_filtered", "refused", False),
        ("malformed_model_output", "malformed_answer", True),
        ("malformed_tool_use", "malformed_answer", True),
    ],
)
def test_what_was_held_back_is_charged(
    said: str,
    kind: str,
    retriable: bool,  # noqa: FBT001
) -> None:
    """A guardrail, a filter or garbled output is a failure that keeps its tokens."""
    failure = fail(LLAMA, CONVERSED | {"stopReason": said})
    assert (failure.kind, failure.retriable) == (kind, retriable)
    assert failure.billed is not None
    assert failure.billed.input_tokens == 9


def test_a_guardrails_own_words_are_the_message() -> None:
    """What it says in place of the answer, without secrets."""
    assert fail(LLAMA, CONVERSED | {"stopReason": "guardrail_intervened"}).message == "yes"
    output = {"message": {"role": "assistant", "content": [{"text": f"No: {KEY}"}]}}
    failure = fail(LLAMA, CONVERSED | {"stopReason": "guardrail_intervened", "output": output})
    assert failure.message == "No: ***"


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"serviceTier": {"type": "default"}}, None),
        ({"serviceTier": {"type": "priority"}}, "priority"),
        ({"serviceTier": {"type": "flex"}}, "flex"),
        ({"performanceConfig": {"latency": "optimized"}}, "optimized"),
        ({"performanceConfig": {"latency": "standard"}}, None),
        ({"usage": USAGE | {"cacheDetails": [{"ttl": "1h", "inputTokens": 5}]}}, "a long cache"),
        ({"usage": USAGE | {"cacheDetails": [{"ttl": "5m", "inputTokens": 5}]}}, None),
    ],
)
def test_what_is_not_charged_by_the_list_says_so(told: Any, why: str | None) -> None:
    """Another tier or speed has other prices."""
    assert ask(LLAMA, CONVERSED | told)[0].off_list == why


@pytest.mark.parametrize(
    "answer",
    [[], "text", None, {"usage": 5}, {"output": []}, {"output": {"message": [1]}}, b"\xff"],
)
def test_what_boto3_cannot_read_is_malformed(answer: Any) -> None:
    """Whatever it raises then."""
    failure = fail(LLAMA, answer)
    assert (failure.kind, failure.retriable) == ("malformed_answer", True)


ERRORS = [
    (400, "ValidationException", "temperature must be less", "bad_request", False),
    (
        400,
        "ValidationException",
        "Input is too long for requested model.",
        "context_too_long",
        False,
    ),
    (
        400,
        "ValidationException",
        "Malformed input request: expected maxLength: 42000, actual: 46735, please reformat",
        "context_too_long",
        False,
    ),
    (
        400,
        "ValidationException",
        "Too many input tokens. Max input tokens: 8192, request input token count: 9000",
        "context_too_long",
        False,
    ),
    (403, "AccessDeniedException", "You don't have access to the model", "authentication", False),
    (403, "ExpiredTokenException", "The security token is expired", "authentication", False),
    (403, "UnrecognizedClientException", "The token is invalid", "authentication", False),
    (403, "InvalidSignatureException", "The signature does not match", "authentication", False),
    (404, "ResourceNotFoundException", "Model not found", "unsupported", False),
    (408, "ModelTimeoutException", "Took too long", "timeout", True),
    (424, "ModelErrorException", "The model failed", "server_error", True),
    (429, "ThrottlingException", "Too many tokens, please wait", "rate_limited", True),
    (429, "ModelNotReadyException", "The model is not ready", "rate_limited", True),
    (400, "ServiceQuotaExceededException", "Over the quota", "rate_limited", False),
    (500, "InternalServerException", "Oh", "server_error", True),
    (503, "ServiceUnavailableException", "Busy", "server_error", True),
]
MODELED = {shape.name for shape in BEDROCK.operation_model("InvokeModel").error_shapes}


def test_every_error_that_the_service_model_knows_is_in_the_table() -> None:
    """An error that a newer boto3 learns must be added above."""
    assert {name for _, name, *_ in ERRORS} >= MODELED


@pytest.mark.parametrize(("status", "name", "message", "expected", "retriable"), ERRORS)
@pytest.mark.parametrize("model", [LLAMA, TITAN], ids=["converse", "titan"])
def test_each_error_of_the_vendor_has_a_kind(
    model: Model,
    status: int,
    name: str,
    message: str,
    expected: str,
    retriable: bool,  # noqa: FBT001
) -> None:
    """With the vendor's words and the wait that it asks for."""
    headers = {"x-amzn-errortype": f"{name}:http://internal/", "retry-after": "7"}
    failure = fail(model, {"message": message}, status=status, headers=headers)
    assert (failure.kind, failure.retriable) == (expected, retriable)
    assert (failure.message, failure.retry_after_s) == (message, 7.0)


def test_no_secret_of_aws_is_told_or_logged(
    aws: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A host that repeats what it was sent, and all loggers at DEBUG, give nothing away."""
    del aws
    caplog.set_level(logging.DEBUG)
    echo = {"message": f"key {ACCESS_KEY}, secret {SECRET_KEY}, token x:{SESSION_TOKEN}\nbad"}
    headers = {"x-amzn-errortype": "InvalidSignatureException"}
    failure = fail(LLAMA, echo, status=403, headers=headers, api_key=None, region="eu-west-1")
    shown = "".join(traceback.format_exception(failure)) + caplog.text
    assert failure.message == "key ***, secret ***, token x:***\nbad"
    assert not [one for one in (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN) if one in shown]


# --- The local server against botocore's service model -------------------------------------------


def client(server: RecordedLLM) -> Any:
    """A bare SDK client, signing with credentials of its own."""
    return boto3.client(
        "bedrock-runtime",
        region_name="eu-west-1",
        endpoint_url=server.address,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(retries={"total_max_attempts": 1}),
    )


def exchange(operation: str, fault: Fault | None = None, **asked: Any) -> Any:
    """One operation of a bare SDK client against the recorded LLM."""

    async def run() -> Any:
        recording = Recording({TEXT: {LLAMA.model: OUTCOME, TITAN.model: OUTCOME}})
        async with RecordedLLM(recording, faults=lambda _request: fault) as server:
            boto = client(server)
            try:
                return await asyncio.to_thread(getattr(boto, operation), **asked)
            finally:
                boto.close()

    return asyncio.run(run())


ASKED = {"modelId": LLAMA.model, "messages": [{"role": "user", "content": [{"text": TEXT}]}]}


@pytest.mark.parametrize("fault", [None, Fault.EMPTY_CHOICES, Fault.CONTENT_FILTER, Fault.REFUSAL])
def test_answers_are_what_the_service_model_declares(fault: Fault | None) -> None:
    """The SDK parses them, and finds all that is required and nothing unknown."""
    answer = exchange("converse", fault, **ASKED)
    about = answer.pop("ResponseMetadata")
    shape = BEDROCK.operation_model("Converse").output_shape
    assert ParamValidator().validate(answer, shape).generate_report() == ""
    assert answer["stopReason"] in BEDROCK.shape_for("StopReason").enum
    assert about["RequestId"]


def test_titans_answers_come_as_a_body() -> None:
    """InvokeModel has no shape for them; its own answer is as declared."""
    body = json.dumps({"inputText": f"User: {TEXT}\nBot:"})
    answer = exchange("invoke_model", modelId=TITAN.model, body=body)
    assert answer["contentType"].startswith("application/json")


@pytest.mark.parametrize(
    ("fault", "name", "status"),
    [
        (Fault.SERVER_ERROR, "InternalServerException", 500),
        (Fault.RATE_LIMITED, "ThrottlingException", 429),
        (Fault.OUT_OF_QUOTA, "ServiceQuotaExceededException", 400),
        (Fault.UNAUTHORIZED, "UnrecognizedClientException", 403),
        (Fault.CONTEXT_TOO_LONG, "ValidationException", 400),
    ],
)
def test_errors_are_what_the_sdk_declares(fault: Fault, name: str, status: int) -> None:
    """The SDK raises its own class for each, with the status that its model says."""
    with pytest.raises(ClientError) as caught:
        exchange("converse", fault, **ASKED)
    response = caught.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (
        name,
        status,
    )
    if name in MODELED:
        assert BEDROCK.shape_for(name).metadata["error"]["httpStatusCode"] == status
        assert type(caught.value).__name__ == name
