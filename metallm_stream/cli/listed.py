"""What the price table has of an arm, found by the settings of its provider.

Invariant: a cost that nobody will tell is asked for when the arm is added, never taken for zero.
"""

from __future__ import annotations

from collections.abc import Iterable

from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Model
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


def may_report_cost(settings: Settings, provider: str) -> bool:
    """Whether the provider's answers may tell what they cost, as those of some hosts do."""
    entry = _entry(settings, provider)
    return entry is None or (entry.wire == "openai" and entry.base_url is not None)


def overruled_prices(settings: Settings, models: Iterable[Model]) -> str | None:
    """What to tell of prices given by hand that vendors may overrule; None where there are none.

    Which of the two a cost comes from is not kept, so that expected costs cannot follow it.
    """
    arms = [
        model.arm
        for model in models
        if model.price is not None
        and model.price.table is None
        and may_report_cost(settings, model.provider)
    ]
    if not arms:
        return None
    return (
        f"note: price of {', '.join(arms)}: where the vendor reports what a call costs, that is "
        "booked, while the router goes on expecting this price: then `metallm models add` the arm "
        "again without a price"
    )


def require_reported_cost(settings: Settings, provider: str, model: str) -> None:
    """Raises `ConfigurationError` if the provider's answers cannot tell what they cost."""
    if may_report_cost(settings, provider):
        return
    raise ConfigurationError(
        f"price: none is known of {model!r} at {provider!r}, whose answers do not tell their cost: "
        "give --input-usd and --output-usd"
    )


def _entry(settings: Settings, provider: str) -> ProviderEntry | None:
    """The provider's settings; without any, those that the name of a wire stands for."""
    known = settings.providers.get(provider)
    return ProviderEntry(wire=provider) if known is None and provider in WIRES else known
