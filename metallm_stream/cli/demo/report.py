"""`report.json`: everything that a run has shown, for people and for whoever compares runs.

Invariant: the report is written whole, also when a check has failed, and then says so.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from confluent_kafka import libversion
from numpy.typing import NDArray
from sqlalchemy import Engine, text

from metallm_stream.cli.demo.books import Ledger, Rebuild
from metallm_stream.cli.demo.checks import Counts
from metallm_stream.cli.demo.drive import Driven
from metallm_stream.cli.demo.figures import Stream
from metallm_stream.cli.demo.schedule import MEAN_DELAY_S
from metallm_stream.cli.demo.services import FAULTS, LATENCY_MEAN_S
from metallm_stream.cli.demo.stage import COST_WEIGHT
from metallm_stream.embedded.downloads import KAFKA_VERSION

PACKAGES = (
    "metallm-stream",
    "confluent-kafka",
    "numpy",
    "river",
    "sqlalchemy",
    "psycopg",
    "openai",
)


@dataclass(frozen=True)
class Run:
    """All that is known after a run."""

    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    counts: Counts
    ledger: Ledger
    rebuild: Rebuild
    stream: Stream
    driven: Driven
    stages_s: Mapping[str, float]
    violations: Sequence[str]


def as_json(run: Run) -> dict[str, Any]:
    """The report as it is written; costs are USD a query."""
    stream, counts = run.stream, run.counts
    return {
        **asdict(counts),
        "rebuild_max_relative_difference": run.rebuild.largest,
        "rebuild_from_rows": run.rebuild.from_rows,
        "rebuild_from_log": run.rebuild.from_log,
        "stream_seconds": round(run.driven.stream_s, 3),
        "drain_seconds": round(run.driven.drain_s, 3),
        **{name: _part(stream, rows) for name, rows in stream.parts().items()},
        "shares": {
            arm: float((stream.arm == column).mean()) for column, arm in enumerate(stream.arms)
        },
        "cost_scale_usd": stream.value.cost_scale_usd,
        "savings": {name: asdict(saving) for name, saving in savings(stream).items()},
        "ledger": asdict(run.ledger),
        "restarts": run.driven.restarts,
        "violations": list(run.violations),
        "stages_seconds": {name: round(seconds, 2) for name, seconds in run.stages_s.items()},
        "settings": dict(run.settings),
        "versions": dict(run.versions),
    }


def write_report(run: Run, path: Path) -> None:
    """Write the report."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    path.write_bytes(orjson.dumps(as_json(run), option=options))


@dataclass(frozen=True)
class Saving:
    """What one arm alone would have spent on the stream, and the part of it that was saved."""

    arm: str
    alone_usd: float
    saved_fraction: float


def savings(stream: Stream) -> dict[str, Saving]:
    """Savings against two fixed arms; negative where the service spent more."""
    others, spent_usd = stream.baselines(stream.parts()["whole"]), float(stream.cost_usd.sum())
    found = {}
    for name in ("dearest", "best_fixed"):
        alone_usd = len(stream) * (others[name].cost_usd or 0.0)
        saved = 1 - spent_usd / alone_usd if alone_usd else 0.0
        found[name] = Saving(others[name].arm or "", alone_usd, saved)
    return found


def settings_of(
    *, queries: int, rate: float, label_fraction: float, seed: int, encoder: str
) -> dict[str, Any]:
    """The run's settings, as they are reported."""
    return {
        "queries": queries,
        "rate": rate,
        "label_fraction": label_fraction,
        "seed": seed,
        "encoder": encoder,
        "cost_weight": COST_WEIGHT,
        "vendor_latency_mean_s": LATENCY_MEAN_S,
        "vendor_faults": FAULTS,
        "label_delay_mean_s": MEAN_DELAY_S,
    }


def versions(engine: Engine, *, is_embedded: bool) -> dict[str, str]:
    """What ran."""
    with engine.connect() as conn:
        postgres = conn.execute(text("SHOW server_version")).scalar_one()
    return {
        "python": platform.python_version(),
        "kafka": KAFKA_VERSION if is_embedded else "given",
        "postgresql": str(postgres),
        "librdkafka": str(libversion()[0]),
        **{name: version(name) for name in PACKAGES},
    }


def _part(stream: Stream, rows: NDArray[np.int64]) -> dict[str, Any]:
    others = {name: value.as_json() for name, value in stream.baselines(rows).items()}
    return {"service": stream.service(rows).as_json(), "baselines": others}
