"""The sizing model: its arithmetic, and the document that shows what it says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.stream.audit import each_once
from benchmarks.stream.sizing import FITTED, Run, compared, fitted
from metallm_stream.cli.main import cli
from metallm_stream.cli.sizing import COSTS, KAFKA, POSTGRES, Bytes, Cost, Sizing, Workload, size

DOCUMENT = Path(__file__).parents[2] / "docs" / "sizing.md"
LOAD = Workload(100, 0.5, arms=4, dimensions=10, characters=200, latency_s=1.0)


def test_cores_are_what_each_second_and_each_query_take() -> None:
    """100 queries a second at 2 + 4 x 0.5 + 0.5 x 1 ms, with 50 ms a second beside them."""
    cost = Cost(idle_ms=46, query_ms=2, arm_ms=0.5, label_ms=1, arm_refresh_ns=1_000)
    assert cost.cores(LOAD) == pytest.approx((100 * 4.5 + 46 + 4) / 1_000)


def test_bytes_are_what_each_part_of_a_query_takes() -> None:
    """Text, arms, context and label each have their share."""
    bytes_ = Bytes(query=100, character=2, arm=10, dimension=4, label=50)
    assert bytes_.of(LOAD) == 100 + 400 + 40 + 40 + 25


@pytest.mark.parametrize("field", ["queries_per_s", "arms", "dimensions", "characters"])
def test_more_work_never_needs_less(field: str) -> None:
    """In no figure."""
    less, more = size(LOAD), size(replace(LOAD, **{field: 3 * getattr(LOAD, field)}))
    for name, need in less.services.items():
        assert more.services[name].cores >= need.cores
        assert more.services[name].replicas >= need.replicas
    assert more.postgres_gb_a_day >= less.postgres_gb_a_day
    assert more.kafka_in_mb_per_s >= less.kafka_in_mb_per_s


def test_slow_vendors_need_more_workers_and_more_partitions() -> None:
    """A worker has so many calls in flight, whatever its core could do; partitions are shared."""
    slow = size(replace(LOAD, latency_s=30))
    assert slow.services["worker"].replicas >= 100 * 30 / 64
    assert slow.partitions >= slow.services["worker"].replicas
    assert slow.services["router"] == size(LOAD).services["router"]


def test_the_document_shows_what_the_model_says() -> None:
    """Each row of the table of docs/sizing.md is recomputed."""
    rows = re.findall(
        r"^\| ([\d,]+) \|((?:[^|]*\|){8}[^|]*)\|$", DOCUMENT.read_text(), re.MULTILINE
    )
    assert len(rows) == 4
    for rate, cells in rows:
        expected = shown(size(Workload(float(rate.replace(",", "")))))
        assert [cell.strip() for cell in cells.split("|")] == expected


def shown(need: Sizing) -> list[str]:
    """A row of the document's table."""
    rest = (need.kafka_cores, need.postgres_cores, need.partitions)
    volume = (need.kafka_in_mb_per_s, need.kafka_gb_a_day, need.postgres_gb_a_day)
    services = [f"{rounded(one.cores)} ({one.replicas:,})" for one in need.services.values()]
    return [*services, *map(rounded, (*rest, *volume))]


def rounded(figure: float) -> str:
    """Two digits, or whole numbers from 100 on."""
    return f"{figure:.2g}" if figure < 99.5 else f"{figure:,.0f}"


def test_the_command_tells_them_all() -> None:
    """`metallm size` asks no server."""
    told = CliRunner().invoke(cli, ["size", "--queries-per-s", "100", "--arms", "8"])
    assert told.exit_code == 0
    for word in ("router", "worker", "learner", "kafka", "postgres", "partitions a topic", "a day"):
        assert word in told.output


def ideal(load: Workload) -> Run:
    """A run that goes exactly as the model says."""
    cores = {name: cost.cores(load) for name, cost in COSTS.items()}
    memory = {"router": 1.0, "worker": 1.0, "learner": 1.0}
    return Run(load, cores, KAFKA.of(load), POSTGRES.of(load), memory)


def test_the_runs_of_the_fit_determine_all_constants() -> None:
    """From runs that follow the model the fit finds the model, and no difference is left."""
    found = fitted([ideal(load) for load in FITTED])
    for name, cost in COSTS.items():
        for field, value in found["COSTS"][name].items():
            assert value == pytest.approx(getattr(cost, field), rel=0.02, abs=0.02), (name, field)
    differences = [
        entry["difference"] for name, entry in compared(ideal(LOAD)).items() if name != "load"
    ]
    assert differences == [0] * len(differences)


def test_an_audit_tells_what_is_lost_and_what_is_doubled() -> None:
    """With how many, and the first of them."""
    each_once("results", ["a", "b"], ["b", "a"])
    with pytest.raises(AssertionError, match=r"results: 1 lost: \['b'\]"):
        each_once("results", ["a", "b"], ["a"])
    with pytest.raises(AssertionError, match=r"results: 1 doubled: \['a'\]"):
        each_once("results", ["a", "b"], ["a", "b", "a"])
