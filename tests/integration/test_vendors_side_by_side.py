"""Four arms behind three SDKs in one service: routed, answered, charged, and equal in the books."""

from __future__ import annotations

from collections import Counter

import httpx2
import pytest

from metallm_stream.events import Model, Price, Query
from metallm_stream.kafka import Record, create, write
from metallm_stream.providers import listed
from tests.pipeline import Pipeline

HOSTED, CLAUDE = "small", "claude-haiku-4-5"
LLAMA, TITAN = "us.meta.llama3-1-8b-instruct-v1:0", "amazon.titan-text-express-v1"
PROVIDERS = {HOSTED: "recorded", CLAUDE: "claude", LLAMA: "bedrock", TITAN: "bedrock"}
VENDORS = {CLAUDE: "anthropic", LLAMA: "aws", TITAN: "aws"}
TEXTS = [f"Is {number} even?" for number in range(48)]


def price_of(model: str) -> Price:
    """The table's price; of the host that no table has, one of our own."""
    if model not in VENDORS:
        return Price(input_usd_per_mtok=0.1, output_usd_per_mtok=0.2)
    entry = listed(model, vendor=VENDORS[model])
    assert entry is not None
    return entry.price


@pytest.fixture
def vendors(pipeline: Pipeline) -> Pipeline:
    """One recorded LLM on three wires, its arms in the catalogue, a worker for each provider."""
    outcome = {"answer": "yes", "input_tokens": 1_000, "output_tokens": 100}
    pipeline.record({text: dict.fromkeys(PROVIDERS, outcome) for text in TEXTS})
    create(
        pipeline.kafka.admin(),
        pipeline.names,
        ("claude", "bedrock"),
        partitions=2,
        replication_factor=1,
    )
    arms = [
        Model(arm=model, provider=provider, model=model, price=price_of(model))
        for model, provider in PROVIDERS.items()
    ]
    write(pipeline.producer, [Record.of(pipeline.names.models, arm.arm, arm) for arm in arms])
    address = pipeline.vendor_url.removesuffix("/v1")
    reached = {"BASE_URL": address, "API_KEY_ENV": "RECORDED_KEY"}
    own = {
        "recorded": {},
        "claude": {"WIRE": "anthropic"} | reached,
        "bedrock": {"WIRE": "bedrock", "REGION": "eu-west-1"} | reached,
    }
    children = [pipeline.start("router", ROUTER__POLICY="uniform", ROUTER__SEED="1")]
    for name, entry in own.items():
        settings = {f"PROVIDERS__{name.upper()}__{key}": value for key, value in entry.items()}
        children.append(pipeline.start("worker", "--provider", name, slot=name, **settings))
    for child in children:
        child.wait_ready(60)
    return pipeline


def test_vendors_work_side_by_side(vendors: Pipeline) -> None:
    """Each arm answers its share; costs are the table's; the vendor's book has every attempt."""
    vendors.ask(*(Query(query_id=f"q{n}", text=text) for n, text in enumerate(TEXTS)))
    results = vendors.wait_for_results(len(TEXTS))
    assert {result.text for result in results.values()} == {"yes"}
    attempts = [attempt for result in results.values() for attempt in result.attempts]
    assert [attempt.failure for attempt in attempts if attempt.failure] == []
    asked = Counter(attempt.arm for attempt in attempts)
    assert asked.keys() == PROVIDERS.keys()
    for attempt in attempts:
        price = price_of(attempt.arm)
        usd = 1_000 * price.input_usd_per_mtok + 100 * price.output_usd_per_mtok
        assert attempt.cost_usd == pytest.approx(usd / 1e6)
        assert attempt.provider_request_id
    ledger = httpx2.get(vendors.vendor_url.removesuffix("/v1") + "/ledger").json()
    booked = {model: total["requests"] for model, total in ledger["models"].items()}
    assert booked == asked
    assert len({call["idempotency_key"] for call in ledger["calls"]}) == len(attempts)
