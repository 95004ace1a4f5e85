"""`metallm providers check` against a local vendor on all three wires."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from click.testing import Result

from metallm_stream.events import Model, Price
from metallm_stream.kafka import Record, write
from metallm_stream.serve.probe import PROMPT
from tests.integration.test_cli import flat, run
from tests.pipeline import KEY, Pipeline

PRICE = Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
WRONG_KEY = "sk-planted-wrong-key"
ARMS = {
    "hosted": ("recorded", "hosted"),
    "claude": ("claude", "claude-haiku-4-5"),
    "llama": ("bedrock", "us.meta.llama3-1-8b-instruct-v1:0"),
    "broken": ("refusing", "hosted"),
    "keyless": ("unset", "hosted"),
}


@pytest.fixture
def vendors(pipeline: Pipeline) -> Pipeline:
    """One recorded LLM behind three wires, and arms of providers that cannot be used."""
    outcome = {"answer": "OK", "input_tokens": 12, "output_tokens": 2}
    models = {model for _, model in ARMS.values()}
    pipeline.record({PROMPT: dict.fromkeys(models, outcome)})
    records = [
        Model(arm=arm, provider=provider, model=model, price=PRICE)
        for arm, (provider, model) in ARMS.items()
    ]
    removed = [Record(pipeline.names.models, model.encode(), None) for model in models - {"hosted"}]
    added = [Record.of(pipeline.names.models, model.arm, model) for model in records]
    write(pipeline.producer, removed + added)
    return pipeline


def check(vendors: Pipeline, *words: str, **options: Any) -> Result:
    """The command's result beside settings of all wires."""
    address = vendors.vendor_url.removesuffix("/v1")
    settings = {
        "RECORDED__BASE_URL": vendors.vendor_url,
        "CLAUDE__WIRE": "anthropic",
        "CLAUDE__BASE_URL": address,
        "CLAUDE__API_KEY_ENV": "RECORDED_KEY",
        "BEDROCK__WIRE": "bedrock",
        "BEDROCK__REGION": "eu-west-1",
        "BEDROCK__BASE_URL": address,
        "BEDROCK__API_KEY_ENV": "RECORDED_KEY",
        "REFUSING__BASE_URL": vendors.vendor_url,
        "REFUSING__API_KEY_ENV": "WRONG_KEY",
        "UNSET__API_KEY_ENV": "UNSET_KEY",
    }
    named = {f"METALLM_PROVIDERS__{name}": value for name, value in settings.items()}
    environment = {"COLUMNS": "160", "WRONG_KEY": WRONG_KEY, "UNSET_KEY": None} | options
    return run(vendors, "providers", "check", *words, **named, **environment)


def calls(vendors: Pipeline) -> int:
    """How many the vendor has booked."""
    ledger = httpx2.get(vendors.vendor_url.removesuffix("/v1") + "/ledger").json()
    return len(ledger["calls"])


def row(result: Result, arm: str) -> list[str]:
    """The cells of an arm's row."""
    lines = [line.strip("│ ") for line in result.stdout.splitlines() if f"│ {arm} " in line]
    return [cell.strip() for cell in lines[0].split("│")]


def test_every_wire_is_checked_and_what_fails_is_told(vendors: Pipeline) -> None:
    """With latency, tokens and price of each call, the vendor's own words, and exit code 1."""
    result = check(vendors, "--yes")
    assert result.exit_code == 1, result.output
    for arm in ("hosted", "claude", "llama"):
        _, provider, says, latency, tokens, cost, *_ = row(result, arm)
        assert (provider, says, tokens) == (ARMS[arm][0], "ok", "12 + 2")
        assert latency.endswith(" s")
        assert cost == "$0.000016"
    assert row(result, "broken")[2] == "authentication"
    assert row(result, "keyless")[2] == "configuration"
    said = "broken: authentication: Error code: 401 - Incorrect or missing API key."
    assert said in result.stdout
    assert "keyless: configuration: provider 'unset': UNSET_KEY is not set" in result.stdout
    assert KEY not in result.output
    assert WRONG_KEY not in result.output
    assert calls(vendors) == 3


def test_names_choose_and_all_well_is_exit_code_0(vendors: Pipeline) -> None:
    """An arm by its name, and all of a provider by the provider's."""
    result = check(vendors, "hosted", "claude", "--yes")
    assert result.exit_code == 0, result.output
    assert "llama" not in result.stdout
    assert calls(vendors) == 2
    unknown = check(vendors, "hosted", "nobody", "--yes")
    assert unknown.exit_code == 1
    assert "'nobody' is neither an arm nor a provider of one" in unknown.stderr


def test_nothing_is_called_before_the_cost_is_agreed_to(vendors: Pipeline) -> None:
    """Without --yes and without an answer, the most that it may cost is shown and that is all."""
    result = check(vendors, "hosted", "claude")
    assert result.exit_code == 1
    # 32 tokens in and 256 out, at 1 and 2 USD for a million, twice
    assert "2 calls, 30 s at most: at most $0.001088" in flat(result)
    assert calls(vendors) == 0
