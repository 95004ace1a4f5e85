"""What the price table has of an arm, found by the settings of its provider.

Invariant: a cost that nobody will tell is asked for when the arm is added, never taken for zero.
"""

from __future__ import annotations

from metallm_stream.errors import ConfigurationError
from metallm_stream.providers import WIRES, Listed, listed
from metallm_stream.settings import ProviderEntry, Settings

# Wires of one vendor have its prices, whatever the provider is called and wherever it listens.
_VENDORS = {"anthropic": "anthropic", "bedrock": "aws"}


def listed_entry(settings: Settings, provider: str, model: str) -> Listed | None:
    """The table's entry for a model at a provider; None where it has none."""
    entry = _entry(settings, provider)
    if entry is None:
        return listed(model, vendor=provider)
    if entry.wire in _VENDORS:
        return listed(model, vendor=_VENDORS[entry.wire])
    if entry.base_url is None:
        return listed(model, vendor="openai")
    return listed(model, url=entry.base_url) or listed(model, vendor=provider)


def require_reported_cost(settings: Settings, provider: str, model: str) -> None:
    """Raises `ConfigurationError` if the provider's answers cannot tell what they cost."""
    entry = _entry(settings, provider)
    if entry is None or (entry.wire == "openai" and entry.base_url is not None):
        return
    raise ConfigurationError(
        f"price: none is known of {model!r} at {provider!r}, whose answers do not tell their cost: "
        "give --input-usd and --output-usd"
    )


def _entry(settings: Settings, provider: str) -> ProviderEntry | None:
    """The provider's settings; without any, those that the name of a wire stands for."""
    known = settings.providers.get(provider)
    return ProviderEntry(wire=provider) if known is None and provider in WIRES else known
