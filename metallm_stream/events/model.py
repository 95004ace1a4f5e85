"""The catalogue of arms.

Invariant: a price is given or it is unknown, and never taken for zero.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metallm_stream.events.base import UserEvent
from metallm_stream.events.bounds import Language, Name, PriceUsd, Region


class Price(UserEvent):
    """An arm's price list, in USD.

    With `table`, the name of a vendor in the price table of `genai-prices`, tries are booked as
    that table has it at their time: tiers by length, cache writes and changes of price included.
    """

    input_usd_per_mtok: PriceUsd
    output_usd_per_mtok: PriceUsd
    cached_input_usd_per_mtok: PriceUsd | None = None
    call_usd: PriceUsd = 0.0
    table: Name | None = None


class Model(UserEvent):
    """One arm of the catalogue: a model at a provider. A tombstone under its key removes it."""

    arm: Name
    provider: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    model: Name
    price: Price | None = None
    context_window_tokens: Annotated[int, Field(ge=1, le=10**9)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=10**9)] | None = None
    tags: Annotated[tuple[Name, ...], Field(max_length=64, fail_fast=True)] = ()
    languages: Annotated[tuple[Language, ...], Field(max_length=256, fail_fast=True)] | None = None
    regions: Annotated[tuple[Region, ...], Field(max_length=64, fail_fast=True)] | None = None
