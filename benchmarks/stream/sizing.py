"""The sizing model beside real runs that it was not fitted to, or fitted anew.

    python -m benchmarks.stream.sizing            # predicted and measured, at three sizes
    python -m benchmarks.stream.sizing --fit      # the constants of metallm_stream/cli/sizing.py

Each run is a whole stream (one router, worker and learner, Kafka, PostgreSQL) under a steady load,
from the first query until the last label is learned. Processor time is counted, not wall time:
it hardly depends on what else the machine does, and queries that wait cost nothing. Prints one
JSON object; a difference is (measured - predicted) / predicted.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls
from sqlalchemy import create_engine, make_url, text

from benchmarks.stream.audit import learned
from benchmarks.stream.load import PROVIDER, Load, open_vendor, texts
from benchmarks.stream.stage import Stage, memory_mb, stored_bytes, tree_cpu_s
from metallm_stream.cli.sizing import COSTS, KAFKA, POSTGRES, Bytes, Cost, Workload
from metallm_stream.embedded import EmbeddedStack, Supervisor, remove_state
from metallm_stream.postgres import open_engine
from metallm_stream.postgres.migrate import migrate

BASE = Workload(40, 0.5, arms=2, dimensions=64, characters=300)
FITTED = (  # each differs from the base in one thing
    replace(BASE, queries_per_s=15),
    replace(BASE, queries_per_s=70),
    replace(BASE, label_share=0.0),
    replace(BASE, arms=8),
    replace(BASE, characters=2_000),
    replace(BASE, arms=4, dimensions=256),
)
CHECKED = (
    Workload(15, 0.3, arms=3, dimensions=128, characters=500),
    Workload(35, 0.5, arms=4, dimensions=128, characters=500),
    Workload(70, 0.5, arms=6, dimensions=128, characters=700),
)
LEARNED_WITHIN_S = 240.0


@dataclass(frozen=True)
class Run:
    """What one run has used, under the load as it really was."""

    load: Workload
    cores: Mapping[str, float]
    kafka_bytes: float
    postgres_bytes: float
    memory_mb: Mapping[str, float]


def main() -> None:
    """Run, and fit or compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20, help="Of each run's load.")
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    loads = FITTED if options.fit else CHECKED
    with open_servers() as servers:
        runs = [measure(servers, load, options.seconds) for load in loads]
    print(json.dumps(fitted(runs) if options.fit else [compared(run) for run in runs], indent=2))


@contextmanager
def open_servers() -> Iterator[EmbeddedStack]:
    """A broker and a PostgreSQL for all runs."""
    state = Path(os.environ.get("TMPDIR", "/tmp")) / f"sizing-{secrets.token_hex(4)}"  # noqa: S108
    with EmbeddedStack(state) as servers:
        yield servers
    remove_state(state)


def measure(servers: EmbeddedStack, load: Workload, seconds: float) -> Run:
    """Run one workload from its first query until all is learned."""
    directory = servers.state.path / secrets.token_hex(4)
    directory.mkdir()
    with Supervisor() as supervisor:
        stage = Stage(
            servers.bootstrap_servers,
            directory,
            supervisor,
            (PROVIDER,),
            database_url=_fresh_database(servers.database_url),
            encoder=f"wordllama:{load.dimensions}",
        )
        return _measure(servers, stage, load, seconds)


def _measure(servers: EmbeddedStack, stage: Stage, load: Workload, seconds: float) -> Run:
    asked = texts(200, load.characters)
    open_vendor(stage, asked, load.arms, "--latency-mean-s", "0.2")
    children = {
        "router": stage.start("router"),
        "worker": stage.start("worker", "--provider", PROVIDER),
        "learner": stage.start("learner"),
        "kafka": servers.supervisor.children["kafka"],
        "postgres": servers.supervisor.children["postgres"],
    }
    empty = _postgres_bytes(stage)
    began_s, cpu = time.monotonic(), {name: tree_cpu_s(it) for name, it in children.items()}
    source = Load(stage, asked, rate=load.queries_per_s, label_share=load.label_share)
    with source:
        time.sleep(seconds)
        source.wait(LEARNED_WITHIN_S)
        learned(stage, source, LEARNED_WITHIN_S)
    took_s, count = time.monotonic() - began_s, len(source.asked_s)
    return Run(
        replace(load, queries_per_s=count / took_s),
        {name: (tree_cpu_s(it) - cpu[name]) / took_s for name, it in children.items()},
        _kafka_bytes(servers, stage) / count,
        (_postgres_bytes(stage) - empty) / count,
        {name: memory_mb(children[name]) for name in ("router", "worker", "learner")},
    )


def compared(run: Run) -> dict[str, Any]:
    """Predicted and measured, side by side."""
    predicted = {f"{name} cores": cost.cores(run.load) for name, cost in COSTS.items()}
    measured = {f"{name} cores": cores for name, cores in run.cores.items()}
    predicted |= {
        "kafka bytes a query": KAFKA.of(run.load),
        "postgres bytes a query": POSTGRES.of(run.load),
    }
    measured |= {
        "kafka bytes a query": run.kafka_bytes,
        "postgres bytes a query": run.postgres_bytes,
    }
    return {"load": asdict(run.load)} | {
        name: {
            "predicted": round(value, 3),
            "measured": round(measured[name], 3),
            "difference": round(measured[name] / value - 1, 2),
        }
        for name, value in predicted.items()
    }


def fitted(runs: Sequence[Run]) -> dict[str, Any]:
    """The constants that fit the runs best, none below 0; differences count relatively."""
    costs = {name: _cost(name, runs) for name in COSTS}
    kafka = _bytes(runs, [run.kafka_bytes for run in runs])
    postgres = _bytes(runs, [run.postgres_bytes for run in runs])
    memory = {name: max(run.memory_mb[name] for run in runs) for name in runs[0].memory_mb}
    return {
        "COSTS": {name: asdict(cost) for name, cost in costs.items()},
        "KAFKA": asdict(kafka),
        "POSTGRES": asdict(postgres),
        "MEMORY_MB": memory,
        "runs": [asdict(run) for run in runs],
    }


def _cost(name: str, runs: Sequence[Run]) -> Cost:
    """Only the learner factorises; labels are read by the learner, and stored."""
    learns = name in ("learner", "kafka", "postgres")
    rows = [
        [
            1,
            (rate := run.load.queries_per_s),
            rate * run.load.arms,
            rate * run.load.label_share if learns else 0,
            run.load.arms * run.load.dimensions**3 / 1e6 if name == "learner" else 0,
        ]
        for run in runs
    ]
    found = _solved(rows, [1e3 * run.cores[name] for run in runs])
    return Cost(*(round(float(value), 4) for value in found))


def _bytes(runs: Sequence[Run], measured: Sequence[float]) -> Bytes:
    rows = [
        [1, run.load.characters, run.load.arms, run.load.dimensions, run.load.label_share]
        for run in runs
    ]
    return Bytes(*(round(float(value), 3) for value in _solved(rows, measured)))


def _solved(rows: Sequence[Sequence[float]], measured: Sequence[float]) -> list[float]:
    scaled = np.array(rows, dtype=float) / np.array(measured)[:, None]
    return list(nnls(scaled, np.ones(len(measured)))[0])


def _fresh_database(url: str) -> str:
    name = f"sizing_{secrets.token_hex(4)}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        conn.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    fresh = make_url(url).set(database=name).render_as_string(hide_password=False)
    migrate(fresh)
    return fresh


def _kafka_bytes(servers: EmbeddedStack, stage: Stage) -> int:
    """What the broker has stored of the topics that grow with the queries."""
    topics = set(stage.names.all((PROVIDER,))) - set(stage.names.compacted)
    return sum(stored_bytes(servers.state.path, topic) for topic in topics)


def _postgres_bytes(stage: Stage) -> int:
    """What interactions take, with indexes and what is stored out of line."""
    engine = open_engine(stage.database_url, application_name="sizing")
    with engine.connect() as conn:
        size = conn.execute(
            text(
                "SELECT sum(pg_total_relation_size(relid))"
                " FROM pg_partition_tree('metallm.interactions')"
            )
        ).scalar_one()
    engine.dispose()
    return int(size)


if __name__ == "__main__":
    main()
