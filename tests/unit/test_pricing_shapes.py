"""What is booked for 200 usages of three wires, against the price table's own reading of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from genai_prices import extract_usage

from metallm_stream.events import Model
from metallm_stream.providers import (
    Answer,
    anthropic_reply,
    bedrock_converse,
    cost_usd,
    listed,
    openai_reply,
)

AT = datetime(2026, 11, 1, tzinfo=UTC)
MODELS = {
    "openai": ("gpt-4o-mini", "gpt-4o", "gpt-5", "o3-mini"),
    "anthropic": ("claude-sonnet-4-5", "claude-opus-4-5", "claude-haiku-4-5", "claude-sonnet-5"),
    "aws": (
        "anthropic.claude-3-5-sonnet-20240620-v1:0",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "meta.llama3-8b-instruct-v1:0",
        "amazon.nova-lite-v1:0",
    ),
}
FLAVORS = {"openai": "chat", "anthropic": "default", "aws": "default"}


def openai_body(model: str, plain: int, read: int, written: int, out: int, thought: int) -> Any:
    """A chat completion with this usage."""
    usage = {
        "prompt_tokens": plain + read + written,
        "completion_tokens": out,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }
    return {"model": model, "choices": [{"message": {"content": "yes"}}], "usage": usage}


def anthropic_body(model: str, plain: int, read: int, written: int, out: int, thought: int) -> Any:
    """A message with this usage."""
    usage = {
        "input_tokens": plain,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "output_tokens": out,
        "output_tokens_details": {"thinking_tokens": thought},
    }
    content = [{"type": "text", "text": "yes"}]
    return {"model": model, "content": content, "stop_reason": "end_turn", "usage": usage}


def aws_body(model: str, plain: int, read: int, written: int, out: int, _thought: int) -> Any:
    """An answer of Converse with this usage."""
    usage = {
        "inputTokens": plain,
        "cacheReadInputTokens": read,
        "cacheWriteInputTokens": written,
        "outputTokens": out,
    }
    output = {"message": {"role": "assistant", "content": [{"text": "yes"}]}}
    return {"model": model, "output": output, "stopReason": "end_turn", "usage": usage}


BODIES: Mapping[str, Callable[..., Any]] = {
    "openai": openai_body,
    "anthropic": anthropic_body,
    "aws": aws_body,
}


def read(vendor: str, body: Any) -> Answer:
    """The answer as the vendor's reader reads it."""
    raw, kind = json.dumps(body).encode(), "application/json"
    match vendor:
        case "openai":
            return openai_reply.read_reply(raw, content_type=kind, request_id=None)
        case "anthropic":
            return anthropic_reply.read_reply(raw, content_type=kind, request_id=None)
        case _:
            return bedrock_converse.read_reply(raw, kind, None)


def shapes() -> list[tuple[str, str, tuple[int, ...]]]:
    """200 usages: short and long prompts on both sides of every tier, with and without caches."""
    draw = Random(20261101)
    found = []
    for _ in range(200):
        vendor = draw.choice(sorted(MODELS))
        plain = draw.choice((0, 1, 999, draw.randrange(5_000), draw.randrange(150_000, 400_000)))
        cached = draw.choice((0, 0, draw.randrange(20_000), draw.randrange(300_000)))
        written = draw.choice((0, 0, draw.randrange(10_000)))
        out = draw.choice((1, 50, draw.randrange(1, 60_000)))
        thought = draw.choice((0, draw.randrange(out + 1)))
        found.append((vendor, draw.choice(MODELS[vendor]), (plain, cached, written, out, thought)))
    return found


def test_200_usages_are_booked_as_the_table_reckons_them() -> None:
    """The table reads the vendor's JSON by itself; to the cent and beyond, it comes to the same."""
    costs = []
    for vendor, model, counts in shapes():
        body = BODIES[vendor](model, *counts)
        entry = listed(model, vendor=vendor)
        assert entry is not None
        arm = Model(arm="a", provider="mine", model=model, price=entry.price)
        extracted = extract_usage(body, provider_id=vendor, api_flavor=FLAVORS[vendor])
        expected = float(extracted.calc_price(genai_request_timestamp=AT).total_price)
        assert cost_usd(arm, read(vendor, body), at=AT) == expected, (vendor, model, counts)
        costs.append(expected)
    assert len(costs) == 200
    assert min(costs) > 0


def test_a_long_prompt_costs_what_its_tier_costs() -> None:
    """Beyond 200,000 tokens, all of them have the higher price, though the arm shows the lower."""
    entry = listed("claude-sonnet-4-5", vendor="anthropic")
    assert entry is not None
    arm = Model(arm="a", provider="mine", model="claude-sonnet-4-5", price=entry.price)
    long = cost_usd(arm, Answer("", 200_001, 0), at=AT)
    assert entry.price.input_usd_per_mtok == 3.0
    assert long == pytest.approx(200_001 * 6.0 / 1e6)


@pytest.mark.parametrize("why", ["batch", "priority", "sound or images", "a cache for an hour"])
def test_what_the_list_does_not_hold_for_is_unknown(why: str) -> None:
    """By the table there is no cost; the vendor's own word or one's own price still counts."""
    answer = Answer("", 10, 1, off_list=why)
    entry = listed("claude-sonnet-4-5", vendor="anthropic")
    assert entry is not None
    arm = Model(arm="a", provider="mine", model="claude-sonnet-4-5", price=entry.price)
    assert cost_usd(arm, answer, at=AT) is None
    own = arm.model_copy(update={"price": entry.price.model_copy(update={"table": None})})
    assert cost_usd(own, answer) == pytest.approx(45e-6)
    assert cost_usd(arm, Answer("", 10, 1, cost_usd=0.5, off_list=why)) == 0.5


@pytest.mark.parametrize(
    ("details", "why"),
    [
        ({"prompt_tokens_details": {"audio_tokens": 3}}, "sound or images"),
        ({"prompt_tokens_details": {"image_tokens": 3}}, "sound or images"),
        ({"completion_tokens_details": {"audio_tokens": 3}}, "sound or images"),
        ({"prompt_tokens_details": {"audio_tokens": 0}}, None),
    ],
)
def test_sound_and_images_are_not_text(details: Any, why: str | None) -> None:
    """Their tokens have prices of their own."""
    body = openai_body("gpt-4o", 9, 0, 0, 1, 0)
    assert read("openai", body | {"usage": body["usage"] | details}).off_list == why


@pytest.mark.parametrize(("tier", "why"), [("default", None), ("flex", "flex"), ("batch", "batch")])
def test_another_service_tier_is_off_the_list(tier: str, why: str | None) -> None:
    """As OpenAI names them."""
    body = openai_body("gpt-4o", 9, 0, 0, 1, 0) | {"service_tier": tier}
    assert read("openai", body).off_list == why
