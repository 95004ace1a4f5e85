"""Vendors that fail in every known way, and one that goes down, seen from the outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.stream import faults, outage
from benchmarks.stream.stage import Stage
from metallm_stream.embedded import Supervisor
from metallm_stream.embedded.recorded_llm import Fault


@pytest.fixture
def open_stage(kafka_bootstrap: str, tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Opens a stage for some providers on the session's Kafka; its topics go at the end."""
    with ExitStack() as opened:

        def opening(*providers: str) -> Stage:
            supervisor = opened.enter_context(Supervisor())
            stage = Stage(kafka_bootstrap, tmp_path, supervisor, providers, partitions=2)
            opened.callback(stage.delete_topics)
            opened.callback(supervisor.stop)
            return stage

        yield opening


def test_twenty_kinds_of_faults(open_stage: Callable[..., Stage]) -> None:
    """One result a query, nothing retried in vain, and every cent of the vendors' books."""
    figures = faults.run(open_stage(*faults.PROVIDERS), 500, rate=0.01, seed=1)
    assert len(figures["faults"]) == len(Fault)
    # Hardly a query runs out of arms, as hardly a circuit opens where a fifth of all requests fail.
    assert figures["answered"] >= 490


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.RESET])
def test_an_outage_is_survived_and_its_end_noticed(
    open_stage: Callable[..., Stage], fault: Fault
) -> None:
    """Every query is answered, others get the queries meanwhile, and then the vendor again."""
    stage = open_stage(*outage.COST_USD)
    figures = outage.run(stage, seconds=22, down_s=6, rate=20, fault=fault)
    assert figures["answered_share"] >= 0.995
    during, after = figures["during"], figures["after"]
    assert during["attempts"]["best"] < during["queries"]
    assert figures["return_noticed_after_s"] < 10
    assert after["answered_by"]["best"] > 0
