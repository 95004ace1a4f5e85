"""What an arm costs that is added without a price."""

from __future__ import annotations

import pytest

from metallm_stream.cli.listed import listed_entry, overruled_prices, require_reported_cost
from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Model, Price
from metallm_stream.settings import ProviderEntry, Settings

SETTINGS = Settings(
    providers={
        "openai": ProviderEntry(api_key_env="OPENAI_API_KEY"),
        "claude": ProviderEntry(wire="anthropic", base_url="https://gateway.example"),
        "frankfurt": ProviderEntry(wire="bedrock", region="eu-central-1"),
        "together": ProviderEntry(base_url="https://api.together.xyz/v1"),
        "local": ProviderEntry(base_url="http://127.0.0.1:8000/v1"),
    }
)


@pytest.mark.parametrize(
    ("provider", "model", "table", "input_usd", "window"),
    [
        ("openai", "gpt-4o-mini", "openai", 0.15, 128_000),
        ("claude", "claude-sonnet-4-5", "anthropic", 3.0, 200_000),
        ("frankfurt", "anthropic.claude-3-5-sonnet-20240620-v1:0", "aws", 3.0, 200_000),
        ("frankfurt", "eu.anthropic.claude-3-5-sonnet-20240620-v1:0", "aws", 3.0, 200_000),
        ("frankfurt", "us.meta.llama3-1-8b-instruct-v1:0", "aws", 0.22, 128_000),
        ("frankfurt", "meta.llama3-8b-instruct-v1:0", "aws", 0.3, 8_192),
        ("frankfurt", "amazon.titan-text-express-v1", "aws", 0.2, None),
        ("together", "meta-llama/Llama-3-8b-chat-hf", "together", 0.2, None),
        ("anthropic", "claude-sonnet-4-5", "anthropic", 3.0, 200_000),  # not in the settings
        ("bedrock", "amazon.titan-text-express-v1", "aws", 0.2, None),  # not in the settings
    ],
)
def test_price_and_window_are_those_of_the_providers_vendor(
    provider: str, model: str, table: str, input_usd: float, window: int | None
) -> None:
    """By its wire or its address, whatever name it has here."""
    entry = listed_entry(SETTINGS, provider, model)
    assert entry is not None
    assert (entry.price.table, entry.price.input_usd_per_mtok) == (table, input_usd)
    assert entry.context_window_tokens == window


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "nobody-knows"), ("claude", "nobody-knows"), ("frankfurt", "nobody-knows")],
)
def test_a_cost_that_nobody_tells_is_asked_for(provider: str, model: str) -> None:
    """In one line that names model, provider and options."""
    assert listed_entry(SETTINGS, provider, model) is None
    with pytest.raises(ConfigurationError, match=rf"'{model}' at '{provider}'.*--input-usd"):
        require_reported_cost(SETTINGS, provider, model)


@pytest.mark.parametrize("provider", ["local", "together", "elsewhere"])
def test_hosts_of_the_openai_wire_may_tell_the_cost_themselves(provider: str) -> None:
    """As OpenRouter and the recorded LLM do; what they do not tell stays unknown."""
    assert listed_entry(SETTINGS, provider, "nobody-knows") is None
    require_reported_cost(SETTINGS, provider, "nobody-knows")


def test_prices_that_a_host_may_overrule_are_named() -> None:
    """Not those of the table, of arms without one, or of vendors that report no cost."""
    own = Price(input_usd_per_mtok=1, output_usd_per_mtok=2)
    table = Price(input_usd_per_mtok=1, output_usd_per_mtok=2, table="together")
    given = [("local", own), ("elsewhere", own), ("together", table), ("local", None)]
    fixed = [("openai", own), ("claude", own), ("frankfurt", own)]

    def arms(prices: list[tuple[str, Price | None]]) -> list[Model]:
        return [
            Model(arm=f"arm-{number}", provider=provider, model="m", price=price)
            for number, (provider, price) in enumerate(prices)
        ]

    told = overruled_prices(SETTINGS, arms(given + fixed))
    assert told is not None
    assert "price of arm-0, arm-1: where the vendor reports" in told
    assert "without a price" in told
    assert overruled_prices(SETTINGS, arms(fixed)) is None
