"""What counting for Prometheus costs a service, beside the work that is counted.

    python benchmarks/counting.py --arms 5

Best of several rounds; the second column is what a scrape costs and how long it is.
"""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from prometheus_client import generate_latest

from metallm_stream.arms import Catalogue
from metallm_stream.events import Attempt, Call, Decision, Model, Query, Result
from metallm_stream.join import Interaction
from metallm_stream.route import Decided
from metallm_stream.serve.call_metrics import CallMetrics
from metallm_stream.serve.drift import Observed
from metallm_stream.serve.learner_metrics import LearnerMetrics
from metallm_stream.serve.metrics import LoopMetrics
from metallm_stream.serve.router_metrics import RouterMetrics

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CATALOGUE = Catalogue()
BATCH = 500


def main() -> None:
    """Count batches of 500 and say what one record of them took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--arms", type=int, default=5)
    arms = [f"arm-{number}" for number in range(parser.parse_args().arms)]
    decided = [chosen(row, arms[row % len(arms)]) for row in range(BATCH)]
    router, worker, learner = RouterMetrics("0"), CallMetrics("worker", "0"), LearnerMetrics("0")
    show("router, a decision", lambda: router.decided(decided), router)
    calls = [(call(arm), result(arm)) for arm in arms] * (BATCH // len(arms))
    show("worker, a call", lambda: end(worker, calls), worker)
    pairs = [(None, Interaction(choice.decision.query_id, choice.decision)) for choice in decided]
    show("learner, an interaction", lambda: learner.learned(pairs, Observed({}, ())), learner)
    show("any, a turn of its loop", lambda: turn(router), router)


def end(worker: CallMetrics, calls: Sequence[tuple[Call, Result]]) -> None:
    """What a worker notes of calls that have ended."""
    for pair in calls:
        worker.ended(*pair)


def turn(router: RouterMetrics) -> None:
    """What a router notes when its loop comes round, a batch of times."""
    for _ in range(BATCH):
        router.records.labels("queries").inc(5)
        router.knows(CATALOGUE, None)
        router.stepped(lambda: {("queries", 0): 0})


def show(what: str, count: Callable[[], object], metrics: LoopMetrics) -> None:
    """One line."""
    took_s = min(timeit.repeat(count, number=10, repeat=9)) / 10 / BATCH
    scrape_s = min(timeit.repeat(lambda: generate_latest(metrics.registry), number=5, repeat=5)) / 5
    size = len(generate_latest(metrics.registry))
    print(f"{what:<26} {took_s * 1e6:6.2f} µs   scrape {scrape_s * 1e3:5.2f} ms, {size:,} bytes")


def chosen(row: int, arm: str) -> Decided:
    """The choice of the arm, as a router writes it."""
    model = Model(arm=arm, provider="p", model="m")
    return Decided(decision(row, arm).encode(), None, (model,), 0.1)


def decision(row: int, arm: str) -> Decision:
    """A decision for the arm."""
    return Decision(
        query_id=f"q{row}",
        fingerprint="f",
        query_partition=0,
        query_offset=row,
        asked_at=NOW,
        decided_at=NOW,
        encoder="none",
        context=b"",
        policy="uniform",
        policy_version=0,
        arm=arm,
        propensity=0.5,
        cost_weight=0.1,
        latency_weight=0.0,
        cost_scale_usd=1.0,
    )


def call(arm: str) -> Call:
    """A call for the arm."""
    model = Model(arm=arm, provider="p", model=arm)
    query = Query(query_id="q", text="Why?")
    return Call(call_id="c", query=query, ranking=(model,), decided_at=NOW)


def result(arm: str) -> Result:
    """The arm's answer at the first try."""
    tried = Attempt(arm=arm, started_at=NOW, latency_s=0.7, cost_usd=0.001)
    return Result(query_id="q", arm=arm, text="x", attempts=(tried,), finished_at=NOW)


if __name__ == "__main__":
    main()
