"""What one try cost: the vendor's word, the catalogue's price, the table, or unknown."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metallm_stream.events import Model, Price
from metallm_stream.providers import Answer, cost_usd

PRICE = Price(
    input_usd_per_mtok=2.0, output_usd_per_mtok=8.0, cached_input_usd_per_mtok=0.5, call_usd=0.001
)
PRICED = Model(arm="a", provider="vendor", model="m", price=PRICE)
LISTED = Model(arm="b", provider="openai", model="gpt-4o-mini")
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_vendors_own_figure_comes_first() -> None:
    """What the vendor says it charged is booked, whatever the price list says."""
    assert cost_usd(PRICED, Answer("", 1_000, 1_000, cost_usd=0.0)) == 0.0


def test_the_catalogues_price_counts_cached_tokens_and_the_call() -> None:
    """Cached input tokens have their own price, and each call its fee."""
    answer = Answer("", input_tokens=1_000, output_tokens=100, cached_input_tokens=400)
    expected = 0.001 + (600 * 2.0 + 400 * 0.5 + 100 * 8.0) / 1e6
    assert cost_usd(PRICED, answer) == pytest.approx(expected, rel=1e-12)


def test_cached_tokens_without_a_price_of_their_own_cost_as_others() -> None:
    """No cached price means the input price."""
    plain = PRICED.model_copy(
        update={"price": PRICE.model_copy(update={"cached_input_usd_per_mtok": None})}
    )
    cached = Answer("", input_tokens=1_000, output_tokens=0, cached_input_tokens=400)
    assert cost_usd(plain, cached) == cost_usd(plain, Answer("", 1_000, 0))


def test_the_table_is_asked_by_provider_and_model() -> None:
    """A model without a price of its own is priced from the table."""
    answer = Answer("", input_tokens=1_000_000, output_tokens=1_000_000)
    assert cost_usd(LISTED, answer, at=MOMENT) == pytest.approx(0.75)


def test_the_table_needs_no_network() -> None:
    """A process that forbids itself sockets and look-ups prices a model all the same."""
    program = """
import sys
from metallm_stream.events import Model
from metallm_stream.providers import Answer, cost_usd

def forbid(event, arguments):
    assert event not in {"socket.connect", "socket.getaddrinfo", "socket.bind"}, event

sys.addaudithook(forbid)
arm = Model(arm="b", provider="openai", model="gpt-4o-mini")
print(cost_usd(arm, Answer("", 1_000_000, 1_000_000)) > 0)
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (ran.stdout, ran.stderr) == ("True\n", "")


def test_the_table_knows_cached_tokens() -> None:
    """Cached tokens are cheaper by the table, and more of them than input tokens do no harm."""
    all_cached = Answer("", 1_000_000, 0, cached_input_tokens=1_000_000)
    too_many = Answer("", 1_000_000, 0, cached_input_tokens=2_000_000)
    assert cost_usd(LISTED, all_cached, at=MOMENT) == pytest.approx(0.075)
    assert cost_usd(LISTED, too_many, at=MOMENT) == pytest.approx(0.075)


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (LISTED, Answer("")),
        (LISTED, Answer("", input_tokens=5)),
        (PRICED, Answer("")),
        (LISTED.model_copy(update={"model": "nobody-knows-it"}), Answer("", 1, 1)),
        (LISTED.model_copy(update={"provider": "my-own-host"}), Answer("", 1, 1)),
        (LISTED.model_copy(update={"model": "text-embedding-3-small"}), Answer("", 1, 1)),
    ],
    ids=["no usage", "half usage", "priced, no usage", "model", "provider", "no output price"],
)
def test_what_is_not_known_is_not_zero(model: Model, answer: Answer) -> None:
    """Unknown tokens, models, providers or prices leave the cost unknown."""
    assert cost_usd(model, answer) is None


def test_a_flat_fee_needs_no_tokens() -> None:
    """An arm that costs nothing by token costs its fee even without usage."""
    flat = Price(input_usd_per_mtok=0, output_usd_per_mtok=0, call_usd=0.01)
    assert cost_usd(PRICED.model_copy(update={"price": flat}), Answer("")) == 0.01


@given(
    tokens_in=st.integers(0, 10**9), tokens_out=st.integers(0, 10**9), cached=st.integers(0, 10**10)
)
def test_a_price_is_never_negative_nor_lowered_by_more_tokens(
    tokens_in: int, tokens_out: int, cached: int
) -> None:
    """For any usage, inconsistent ones included, cost is at least the fee and grows with output."""
    cost = cost_usd(PRICED, Answer("", tokens_in, tokens_out, cached))
    more = cost_usd(PRICED, Answer("", tokens_in, tokens_out + 1, cached))
    assert cost is not None
    assert more is not None
    assert 0.001 <= cost <= more
