"""Local vendors for the contract suite: one a wire, each with faults that the test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from metallm_stream.embedded.recorded_llm import ChatRequest, Fault, Outcome, RecordedLLM, Recording
from metallm_stream.events import Model
from metallm_stream.providers import ProviderSettings

KEY = "sk-planted-key-7f3a"
HEADER_VALUE = "planted-header-value"
TEXT = "What is 2 + 2?"
OUTCOME = Outcome(answer="4", cost_usd=0.00125, input_tokens=9, output_tokens=1)
ARM = Model(arm="mini", provider="vendor", model="vendor/mini-1")
Kinds = Mapping[Fault, tuple[str, bool]]
MESSAGES = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT})


@dataclass
class Vendor:
    """A local vendor whose next faults are set by the test, and how to reach it.

    `cost_usd` is what it says that an answer costs, `kinds` where its failures are of a kind that
    is the wire's own.
    """

    wire: str
    arm: Model = ARM
    cost_usd: float | None = None
    kinds: Kinds = field(default_factory=dict)
    base_url: str = ""
    fault: Fault | None = None
    seen: list[ChatRequest] = field(default_factory=list)

    def strike(self, request: ChatRequest) -> Fault | None:
        """Note the request and say what befalls it."""
        self.seen.append(request)
        return self.fault

    def settings(self, **changed: Any) -> ProviderSettings:
        """How to reach this vendor, with changes."""
        known = {"name": "vendor", "wire": self.wire, "region": "eu-west-1", "api_key": KEY}
        return ProviderSettings.model_validate(known | {"base_url": self.base_url} | changed)


@asynccontextmanager
async def _open(vendor: Vendor, **options: Any) -> AsyncIterator[Vendor]:
    """A recorded LLM, reached by the wire of the vendor."""
    recording = Recording({TEXT: {vendor.arm.model: OUTCOME}})
    async with RecordedLLM(
        recording, api_key=SecretStr(KEY), faults=vendor.strike, **options
    ) as server:
        vendor.base_url = server.base_url if vendor.wire == "openai" else server.address
        yield vendor


def openai_vendor(**options: Any) -> AbstractAsyncContextManager[Vendor]:
    """Chat completions, with a cost in the usage."""
    return _open(Vendor("openai", cost_usd=0.00125), **options)


def anthropic_vendor(**options: Any) -> AbstractAsyncContextManager[Vendor]:
    """Messages; an error inside a 200 says its kind, and a used up quota is a bill to pay."""
    kinds = {
        Fault.ERROR_IN_200: ("server_error", True),
        Fault.OUT_OF_QUOTA: ("authentication", False),
    }
    return _open(Vendor("anthropic", kinds=kinds), **options)


def converse_vendor(**options: Any) -> AbstractAsyncContextManager[Vendor]:
    """Bedrock's Converse, whose 200 holds no kind of error."""
    arm = ARM.model_copy(update={"model": "us.meta.llama3-1-8b-instruct-v1:0"})
    return _open(Vendor("bedrock", arm=arm, kinds=BEDROCK_KINDS), **options)


def titan_vendor(**options: Any) -> AbstractAsyncContextManager[Vendor]:
    """Bedrock's InvokeModel, for Titan's text."""
    arm = ARM.model_copy(update={"model": "amazon.titan-text-express-v1"})
    return _open(Vendor("bedrock", arm=arm, kinds=BEDROCK_KINDS), **options)


BEDROCK_KINDS = {Fault.RATE_LIMITED_IN_200: ("malformed_answer", True)}
VENDORS = {
    "openai": openai_vendor,
    "anthropic": anthropic_vendor,
    "bedrock converse": converse_vendor,
    "bedrock titan": titan_vendor,
}
