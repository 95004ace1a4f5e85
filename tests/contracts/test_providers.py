"""What every provider must do, on its real SDK against a local server that speaks its wire."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError

from metallm_stream.embedded.recorded_llm import Fault
from metallm_stream.errors import ConfigurationError
from metallm_stream.providers import (
    WIRES,
    Answer,
    Provider,
    ProviderFailure,
    ProviderSettings,
    open_provider,
)
from tests.tap import tapped
from tests.vendors import HEADER_VALUE, KEY, MESSAGES, VENDORS, Vendor

FAILURES: dict[Fault, tuple[str, bool]] = {
    Fault.SERVER_ERROR: ("server_error", True),
    Fault.RATE_LIMITED: ("rate_limited", True),
    Fault.OUT_OF_QUOTA: ("rate_limited", False),
    Fault.UNAUTHORIZED: ("authentication", False),
    Fault.BAD_REQUEST: ("bad_request", False),
    Fault.CONTEXT_TOO_LONG: ("context_too_long", False),
    Fault.ERROR_IN_200: ("malformed_answer", True),
    Fault.RATE_LIMITED_IN_200: ("rate_limited", True),
    Fault.HANG: ("timeout", True),
    Fault.TRICKLE: ("timeout", True),
    Fault.RESET: ("connection", True),
    Fault.CUT_OFF: ("connection", True),
    Fault.HTML: ("malformed_answer", True),
    Fault.TRUNCATED: ("malformed_answer", True),
    Fault.OVERSIZED: ("malformed_answer", False),
    Fault.COMPRESSED: ("malformed_answer", False),
    Fault.EMPTY_CHOICES: ("malformed_answer", True),
    Fault.CONTENT_FILTER: ("refused", False),
    Fault.REFUSAL: ("refused", False),
    Fault.REDIRECT: ("connection", False),
}


@pytest.fixture(params=sorted(VENDORS))
def vendors(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Each kind of provider in turn: an asynchronous context manager that opens its vendor."""
    return VENDORS[request.param]


def play(
    scene: Callable[..., Awaitable[None]], vendors: Callable[..., Any], **options: Any
) -> None:
    """Run a scene with an open vendor and a provider for it, and close both."""

    async def run() -> None:
        async with vendors(**options) as vendor:
            provider = open_provider(vendor.settings())
            try:
                await scene(vendor, provider)
            finally:
                await provider.close()

    asyncio.run(run())


async def ask(
    vendor: Vendor, provider: Provider, *, timeout_s: float = 60.0, key: str = "key-1"
) -> Answer:
    return await provider.complete(
        vendor.arm, MESSAGES, None, timeout_s=timeout_s, idempotency_key=key
    )


async def fail(vendor: Vendor, provider: Provider, *, timeout_s: float = 60.0) -> ProviderFailure:
    with pytest.raises(ProviderFailure) as caught:
        await ask(vendor, provider, timeout_s=timeout_s)
    return caught.value


# What each wire answers with a text (none: cut off before any), and the header of its identity.
Reply = Callable[[str | None], dict[str, Any]]
REPLIES: dict[str, tuple[Reply, str]] = {
    "openai": (
        lambda text: {
            "choices": [
                {
                    "finish_reason": "length" if text is None else "stop",
                    "message": {"content": text},
                }
            ],
            "usage": {"prompt_tokens": 9, "completion_tokens": 1},
        },
        "x-request-id",
    ),
    "anthropic": (
        lambda text: {
            "content": [{"type": "text", "text": text}] if text else [],
            "stop_reason": "max_tokens" if text is None else "end_turn",
            "usage": {"input_tokens": 9, "output_tokens": 1},
        },
        "request-id",
    ),
    "bedrock converse": (
        lambda text: {
            "output": {"message": {"role": "assistant", "content": [{"text": text}] * bool(text)}},
            "stopReason": "max_tokens" if text is None else "end_turn",
            "usage": {"inputTokens": 9, "outputTokens": 1},
        },
        "x-amzn-requestid",
    ),
    "bedrock titan": (
        lambda text: {
            "inputTextTokenCount": 9,
            "results": [
                {"outputText": text or "", "completionReason": "FINISHED" if text else "LENGTH"}
            ],
        },
        "x-amzn-requestid",
    ),
}


def heard(
    name: str, body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer | ProviderFailure:
    """How a try ends at a host that answers this, and repeats its secrets in the identity."""

    async def run() -> Answer:
        said = {REPLIES[name][1]: f"{KEY} {HEADER_VALUE}"} | dict(headers or {})
        vendor, own = VENDORS[name], {"X-Team": HEADER_VALUE}
        async with (
            vendor() as known,
            tapped(known.wire, body, status=status, headers=said, own=own) as (_tap, provider),
        ):
            return await ask(known, provider)

    try:
        return asyncio.run(run())
    except ProviderFailure as failure:
        return failure


@pytest.mark.parametrize("name", sorted(VENDORS))
def test_no_secret_comes_back(name: str) -> None:
    """Neither in the identity nor in the text of an answer, which may hold a header's word."""
    reply, _ = REPLIES[name]
    answer = heard(name, reply(f"You are {KEY} of {HEADER_VALUE}."))
    assert isinstance(answer, Answer)
    assert (answer.text, answer.request_id) == (f"You are *** of {HEADER_VALUE}.", "*** ***")
    for failure in (heard(name, reply(None)), heard(name, {"message": KEY}, status=400)):
        assert isinstance(failure, ProviderFailure)
        assert failure.request_id == "*** ***"
        assert KEY not in f"{failure.message} {failure.billed}"


@pytest.mark.parametrize("name", sorted(VENDORS))
def test_what_a_limit_cut_off_before_any_text_is_not_asked_for_again(name: str) -> None:
    """It is the query's limit, or the arm's, and no trouble of the vendor's; it is charged."""
    failure = heard(name, REPLIES[name][0](None))
    assert isinstance(failure, ProviderFailure)
    assert (failure.kind, failure.retriable) == ("unsupported", False)
    assert failure.billed is not None
    assert failure.billed.input_tokens == 9


@pytest.mark.parametrize(
    ("name", "reason"),
    [("anthropic", "stop_reason"), ("bedrock converse", "stopReason")],
)
def test_what_a_stop_sequence_ends_at_once_is_an_empty_answer(name: str, reason: str) -> None:
    """As on the other wires: it is what the query asked for, and no trouble of the vendor's."""
    answer = heard(name, REPLIES[name][0]("") | {reason: "stop_sequence"})
    assert isinstance(answer, Answer)
    assert (answer.text, answer.finish_reason, answer.input_tokens) == ("", "stop", 9)


@pytest.mark.parametrize("name", sorted(VENDORS))
def test_no_cookie_is_kept(name: str) -> None:
    """One that no request could carry does not break those that follow."""

    async def run() -> None:
        headers = {"Set-Cookie": "name=caf\u00e9"}
        async with (
            VENDORS[name]() as vendor,
            tapped(vendor.wire, REPLIES[name][0]("4"), headers=headers) as (tap, provider),
        ):
            for _ in range(2):
                assert (await ask(vendor, provider)).text == "4"
        assert not [sent for sent in tap.headers if "Cookie" in sent]

    asyncio.run(run())


@pytest.mark.parametrize("charset", ["utf-16", "zlib", "punycode", "idna"])
@pytest.mark.parametrize("name", sorted(VENDORS))
def test_a_refusal_is_read_whatever_its_text_is_called(name: str, charset: str) -> None:
    """Some codecs raise; others would unpack the text, or take hours for it."""
    headers = {"content-type": f"text/plain; charset={charset}"}
    failure = heard(name, b"down", status=503, headers=headers)
    assert isinstance(failure, ProviderFailure)
    assert (failure.kind, failure.retriable) == ("server_error", True)


def test_every_wire_of_the_registry_is_under_contract() -> None:
    """A wire that is not tested here cannot be registered."""
    assert set(WIRES) == {name.partition(" ")[0] for name in VENDORS}


def test_an_answer_has_text_tokens_cost_and_request_id(vendors: Callable[..., Any]) -> None:
    """What the vendor says of text, tokens, cost and identity arrives as it was sent."""

    async def scene(vendor: Vendor, provider: Provider) -> None:
        answer = await ask(vendor, provider)
        assert (answer.text, answer.finish_reason) == ("4", "stop")
        assert (answer.input_tokens, answer.output_tokens) == (9, 1)
        assert answer.cost_usd == vendor.cost_usd
        assert answer.request_id
        assert provider.name == "vendor"

    play(scene, vendors)


def test_every_fault_has_an_expectation() -> None:
    """A fault that the server learns must be added to the table above."""
    assert set(FAILURES) == set(Fault)


@pytest.mark.parametrize("fault", list(Fault))
def test_a_fault_is_a_failure_of_its_kind_and_leaves_the_provider_usable(
    vendors: Callable[..., Any], fault: Fault
) -> None:
    """Each fault raises the right kind, in time, without secrets; the next call is answered."""

    async def scene(vendor: Vendor, provider: Provider) -> None:
        vendor.fault = fault
        timeout_s = 0.2 if fault in {Fault.HANG, Fault.TRICKLE} else 60.0
        began_s = time.monotonic()
        failure = await fail(vendor, provider, timeout_s=timeout_s)
        expected = (FAILURES | vendor.kinds)[fault]
        assert (failure.kind, failure.retriable) == expected, failure.message
        assert time.monotonic() - began_s < timeout_s + 2.0
        assert KEY not in "".join(traceback.format_exception(failure))
        vendor.fault = None
        assert (await ask(vendor, provider)).text == "4"
        assert [request.idempotency_key for request in vendor.seen] == ["key-1", "key-1"]

    play(scene, vendors)


@pytest.mark.parametrize("fault", [Fault.EMPTY_CHOICES, Fault.CONTENT_FILTER, Fault.REFUSAL])
def test_what_a_failed_try_was_charged_is_kept(vendors: Callable[..., Any], fault: Fault) -> None:
    """Tokens and cost of an unusable answer come with the failure."""

    async def scene(vendor: Vendor, provider: Provider) -> None:
        vendor.fault = fault
        failure = await fail(vendor, provider)
        assert failure.billed is not None
        assert (failure.billed.input_tokens, failure.billed.cost_usd) == (9, vendor.cost_usd)
        assert failure.request_id

    play(scene, vendors)


def test_the_wait_that_a_vendor_asks_for_is_passed_on(vendors: Callable[..., Any]) -> None:
    """A rate limit carries the vendor's Retry-After in seconds."""

    async def scene(vendor: Vendor, provider: Provider) -> None:
        vendor.fault = Fault.RATE_LIMITED
        assert (await fail(vendor, provider)).retry_after_s == 1.5

    play(scene, vendors, retry_after_s=1.5)


def test_a_redirect_is_not_followed(vendors: Callable[..., Any]) -> None:
    """Neither key nor prompt reach the host that a redirect points to."""

    async def run() -> None:
        async with vendors() as other:
            elsewhere = f"{other.base_url}/chat/completions"
            async with vendors(redirect_to=elsewhere) as vendor:
                provider = open_provider(vendor.settings())
                vendor.fault = Fault.REDIRECT
                failure = await fail(vendor, provider)
                await provider.close()
            assert other.seen == []
            assert other.base_url.split("/")[2] in failure.message

    asyncio.run(run())


def test_a_wrong_key_is_an_authentication_failure(vendors: Callable[..., Any]) -> None:
    """A refused key is told apart from other failures and is not worth a retry."""

    async def scene(vendor: Vendor, _provider: Provider) -> None:
        provider = open_provider(vendor.settings(api_key="sk-wrong"))
        failure = await fail(vendor, provider)
        await provider.close()
        assert (failure.kind, failure.retriable) == ("authentication", False)

    play(scene, vendors)


def test_nobody_listening_is_a_connection_failure(vendors: Callable[..., Any]) -> None:
    """A host that is down is retriable trouble, not a crash."""

    async def run() -> None:
        async with vendors() as vendor:
            settings = vendor.settings()
        provider = open_provider(settings)
        failure = await fail(vendor, provider)
        await provider.close()
        assert (failure.kind, failure.retriable) == ("connection", True)

    asyncio.run(run())


def test_an_unknown_model_is_unsupported(vendors: Callable[..., Any]) -> None:
    """A model that the vendor does not have fails at once, with its name in the message."""

    async def scene(vendor: Vendor, provider: Provider) -> None:
        unknown = vendor.arm.model_copy(update={"model": f"{vendor.arm.model}-none"})
        with pytest.raises(ProviderFailure) as caught:
            await provider.complete(unknown, MESSAGES, None, timeout_s=60, idempotency_key="k")
        assert (caught.value.kind, caught.value.retriable) == ("unsupported", False)
        assert unknown.model in caught.value.message

    play(scene, vendors)


def test_more_calls_than_connections_are_all_answered(vendors: Callable[..., Any]) -> None:
    """Calls beyond `max_connections` wait for a connection."""

    async def scene(vendor: Vendor, _provider: Provider) -> None:
        provider = open_provider(vendor.settings(max_connections=40))
        answers = await asyncio.gather(*(ask(vendor, provider, key=str(n)) for n in range(200)))
        await provider.close()
        assert {answer.text for answer in answers} == {"4"}
        assert len({request.idempotency_key for request in vendor.seen}) == 200

    play(scene, vendors)


def test_calls_that_were_cancelled_or_timed_out_free_their_connections(
    vendors: Callable[..., Any],
) -> None:
    """After more hung calls than connections, half of them cancelled, the provider still works."""

    async def scene(vendor: Vendor, _provider: Provider) -> None:
        provider = open_provider(vendor.settings(max_connections=8))
        vendor.fault = Fault.HANG
        tasks = [asyncio.create_task(ask(vendor, provider, timeout_s=0.3)) for _ in range(32)]
        await asyncio.wait(tasks, timeout=0.1)
        for task in tasks[::2]:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(one) for one in ended} == {ProviderFailure, asyncio.CancelledError}
        vendor.fault = None
        answers = await asyncio.gather(*(ask(vendor, provider, timeout_s=60) for _ in range(32)))
        await provider.close()
        assert {answer.text for answer in answers} == {"4"}

    play(scene, vendors)


def test_secrets_are_in_no_repr(vendors: Callable[..., Any]) -> None:
    """Settings, providers and settings errors show neither key nor header values."""

    async def scene(vendor: Vendor, _provider: Provider) -> None:
        settings = vendor.settings(headers={"X-Team": HEADER_VALUE})
        provider = open_provider(settings)
        shown = [repr(settings), str(settings), settings.model_dump_json(), repr(provider)]
        await provider.close()
        with pytest.raises(ValidationError) as caught:
            vendor.settings(api_key=f"{KEY}\n", base_url=f"https://user:{KEY}@host/v1")
        shown.append(str(caught.value))
        assert not [text for text in shown if KEY in text or HEADER_VALUE in text]

    play(scene, vendors)


def test_no_key_is_logged(vendors: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """With every logger at DEBUG, neither an answer nor a refusal that echoes the key shows it."""
    caplog.set_level(logging.DEBUG)

    async def scene(vendor: Vendor, _provider: Provider) -> None:
        provider = open_provider(vendor.settings(headers={"X-Team": HEADER_VALUE}))
        await ask(vendor, provider)
        vendor.fault = Fault.UNAUTHORIZED
        await fail(vendor, provider)
        await provider.close()

    play(scene, vendors)
    assert not [one for one in (KEY, HEADER_VALUE) if one in caplog.text]


def test_loopback_is_reached_in_spite_of_a_proxy(
    vendors: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxy variables do not catch calls to this machine."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    monkeypatch.setenv("ALL_PROXY", "http://proxy.invalid:1")

    async def scene(vendor: Vendor, provider: Provider) -> None:
        assert (await ask(vendor, provider)).text == "4"

    play(scene, vendors)


def test_other_hosts_are_reached_through_the_proxy(
    vendors: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual variable names it; here the vendor itself plays the proxy of a host without one."""

    async def scene(vendor: Vendor, _provider: Provider) -> None:
        here = urlsplit(vendor.settings().base_url or "")
        monkeypatch.setenv("HTTP_PROXY", f"http://{here.netloc}")
        elsewhere = here._replace(netloc="vendor.invalid").geturl()
        provider = open_provider(vendor.settings(base_url=elsewhere))
        assert (await ask(vendor, provider)).text == "4"
        await provider.close()

    play(scene, vendors)


def test_a_proxy_that_is_no_address_is_told_at_start(
    vendors: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a slash in a password, of which nothing is shown."""

    async def scene(vendor: Vendor, _provider: Provider) -> None:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:{KEY}/x@proxy.invalid:3128")
        with pytest.raises(ConfigurationError, match=r"%2F") as caught:
            open_provider(vendor.settings())
        assert KEY not in "".join(traceback.format_exception(caught.value))

    play(scene, vendors)


def test_a_proxy_that_is_not_spoken_to_is_told_at_start(
    vendors: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SOCKS is not; the message says what is, without the password."""

    async def scene(vendor: Vendor, _provider: Provider) -> None:
        monkeypatch.setenv("ALL_PROXY", f"socks5://user:{KEY}@proxy.invalid:1080")
        with pytest.raises(
            ConfigurationError, match=r"socks5://proxy\.invalid: only http"
        ) as caught:
            open_provider(vendor.settings())
        assert KEY not in str(caught.value)

    play(scene, vendors)


def test_an_unknown_wire_names_the_known_ones() -> None:
    """A misspelt wire ends with a message that has the remedy."""
    settings = ProviderSettings(name="vendor", wire="opneai", api_key=KEY)
    with pytest.raises(
        ConfigurationError, match=r"'opneai'.*use one of anthropic, bedrock, openai"
    ):
        open_provider(settings)
