"""What one try cost.

Invariant: an unknown cost stays unknown (`None`); it is never booked as zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from genai_prices import Usage, calc_price
from genai_prices.types import ModelPrice, PriceCalculation, TieredPrices

from metallm_stream.events import Model, Price
from metallm_stream.providers.base import Answer, ProviderFailure

# Failures of tries that reached a vendor, which may have charged them.
_MAYBE_BILLED = {"timeout", "deadline", "superseded", "malformed_answer"}


def cost_usd(model: Model, answer: Answer, *, at: datetime | None = None) -> float | None:
    """The cost of one try in USD, from the best source that knows it.

    In this order: the vendor's own figure; the catalogue's price, unless that names the table; the
    price table that comes with `genai-prices` (no network), by vendor and model name, as of `at`
    (default: now). The table holds for the usual service and for text: what was charged otherwise
    (`off_list`) has no known cost.

    >>> price = Price(input_usd_per_mtok=1.0, output_usd_per_mtok=4.0)
    >>> arm = Model(arm="a", provider="p", model="m", price=price)
    >>> cost_usd(arm, Answer("text", input_tokens=1_000, output_tokens=500))
    0.003
    """
    if answer.cost_usd is not None:
        return answer.cost_usd
    if model.price is None:
        return _by_table(model.provider, model.model, answer, at)
    if model.price.table is None:
        return _by_price(model.price, answer)
    return _by_table(model.price.table, model.model, answer, at)


def at_most_usd(
    model: Model,
    ended: Answer | ProviderFailure,
    *,
    prompt_bytes: int,
    longest_tokens: int,
    at: datetime | None = None,
) -> float | None:
    """What a try costs at most by its arm's usual price, if nobody tells: a byte is a token.

    A try that brought no text may have had the longest answer. 0 where no price is known; None for
    a failure that no vendor charges.

    >>> price = Price(input_usd_per_mtok=1.0, output_usd_per_mtok=4.0)
    >>> arm = Model(arm="a", provider="p", model="m", price=price)
    >>> at_most_usd(arm, Answer("four"), prompt_bytes=984, longest_tokens=100)
    0.001
    """
    if isinstance(ended, ProviderFailure) and not ended.billed and ended.kind not in _MAYBE_BILLED:
        return None
    told = ended if isinstance(ended, Answer) else ended.billed or Answer("")
    sent, written = told.input_tokens, told.output_tokens
    text_bytes = len(told.text.encode("utf-8", "replace"))
    counted = replace(
        told,
        input_tokens=prompt_bytes if sent is None else sent,
        output_tokens=(text_bytes or longest_tokens) if written is None else written,
        off_list=None,
    )
    return cost_usd(model, counted, at=at) or 0.0


@dataclass(frozen=True, slots=True)
class Listed:
    """What the price table has of one model: its price of the lowest tier, and its window."""

    price: Price
    context_window_tokens: int | None


def listed(model: str, *, vendor: str | None = None, url: str | None = None) -> Listed | None:
    """A model's entry in the price table, by its vendor's name or address; None without one.

    >>> listed("gpt-4o-mini", vendor="openai").price.output_usd_per_mtok
    0.6
    """
    found = _found(Usage(input_tokens=0, output_tokens=0), model, vendor, url, None)
    if found is None:
        return None
    prices = found.model_price
    cached = prices.cache_read_mtok
    return Listed(
        Price(
            input_usd_per_mtok=_base(prices.input_mtok),
            output_usd_per_mtok=_base(prices.output_mtok),
            cached_input_usd_per_mtok=None if cached is None else _base(cached),
            call_usd=_base(prices.requests_kcount) / 1e3,
            table=found.provider.id,
        ),
        found.model.context_window,
    )


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


def _by_table(vendor: str, model: str, answer: Answer, at: datetime | None) -> float | None:
    if answer.input_tokens is None or answer.output_tokens is None or answer.off_list is not None:
        return None
    read = min(answer.cached_input_tokens or 0, answer.input_tokens)
    usage = Usage(
        input_tokens=answer.input_tokens,
        cache_read_tokens=read,
        cache_write_tokens=min(answer.cache_write_tokens or 0, answer.input_tokens - read),
        output_tokens=answer.output_tokens,
        output_reasoning_tokens=min(answer.reasoning_tokens or 0, answer.output_tokens),
    )
    found = _found(usage, model, vendor, None, at)
    return None if found is None else float(found.total_price)


def _found(
    usage: Usage, model: str, vendor: str | None, url: str | None, at: datetime | None
) -> PriceCalculation | None:
    try:
        found = (
            calc_price(usage, model, provider_api_url=url, genai_request_timestamp=at)
            if vendor is None
            else calc_price(usage, model, provider_id=vendor, genai_request_timestamp=at)
        )
    except LookupError:  # the table's way of saying that it does not know this model
        return None
    return found if _is_by_token(found.model_price) else None


def _is_by_token(prices: ModelPrice) -> bool:
    return prices.input_mtok is not None and prices.output_mtok is not None


def _base(price: Decimal | TieredPrices | None) -> float:
    return float(price.base if isinstance(price, TieredPrices) else price or 0)
