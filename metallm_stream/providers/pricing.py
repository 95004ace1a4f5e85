"""What one try cost.

Invariant: an unknown cost stays unknown (`None`); it is never booked as zero.
"""

from __future__ import annotations

from datetime import datetime

from genai_prices import Usage, calc_price

from metallm_stream.events import Model, Price
from metallm_stream.providers.base import Answer


def cost_usd(model: Model, answer: Answer, *, at: datetime | None = None) -> float | None:
    """The cost of one try in USD, from the best source that knows it.

    In this order: the vendor's own figure; the catalogue's price; the price table that comes with
    `genai-prices` (no network), by provider and model name, as of `at` (default: now).

    >>> price = Price(input_usd_per_mtok=1.0, output_usd_per_mtok=4.0)
    >>> arm = Model(arm="a", provider="p", model="m", price=price)
    >>> cost_usd(arm, Answer("text", input_tokens=1_000, output_tokens=500))
    0.003
    """
    if answer.cost_usd is not None:
        return answer.cost_usd
    if model.price is not None:
        return _by_price(model.price, answer)
    return _by_table(model, answer, at)


def _by_price(price: Price, answer: Answer) -> float | None:
    if answer.input_tokens is None or answer.output_tokens is None:
        free = price.input_usd_per_mtok == price.output_usd_per_mtok == 0.0
        return price.call_usd if free else None
    cached_tokens = min(answer.cached_input_tokens or 0, answer.input_tokens)
    cached_usd_per_mtok = (
        price.input_usd_per_mtok
        if price.cached_input_usd_per_mtok is None
        else price.cached_input_usd_per_mtok
    )
    micro_usd = (
        (answer.input_tokens - cached_tokens) * price.input_usd_per_mtok
        + cached_tokens * cached_usd_per_mtok
        + answer.output_tokens * price.output_usd_per_mtok
    )
    return price.call_usd + micro_usd / 1e6


def _by_table(model: Model, answer: Answer, at: datetime | None) -> float | None:
    if answer.input_tokens is None or answer.output_tokens is None:
        return None
    usage = Usage(
        input_tokens=answer.input_tokens,
        cache_read_tokens=min(answer.cached_input_tokens or 0, answer.input_tokens),
        output_tokens=answer.output_tokens,
    )
    try:
        found = calc_price(
            usage, model.model, provider_id=model.provider, genai_request_timestamp=at
        )
    except LookupError:  # the table's way of saying that it does not know this model
        return None
    listed = found.model_price
    if listed.input_mtok is None or listed.output_mtok is None:
        return None  # priced by something other than tokens
    return float(found.total_price)
