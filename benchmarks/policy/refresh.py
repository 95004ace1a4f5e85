"""How long a refresh takes, and what the state weighs.

    python benchmarks/policy/refresh.py --arms 3 50 --dimensions 128 384

CPU time of `fit` on one BLAS thread, medians. Growth is the exponent e of `time ~ K^e` and
`time ~ d^e`, by least squares on logarithms. Memory: the sums, what a fit keeps, the peak during
a fit, and the records that are published, in MB; the last column is the growth of the process's
resident set.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from streams import unit_contexts
from tables import parser, say_versions, show, write
from threadpoolctl import threadpool_limits

from metallm_stream.policy import Sums, fit, to_records

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MB = 1_000_000


def learned(arms: list[str], d: int, events: int) -> Sums:
    """Sums of so many events an arm."""
    rng, sums = np.random.default_rng(d), Sums(d)
    for arm in arms:
        contexts = unit_contexts(events, d, rng)
        chance = 0.6 + 0.3 * contexts[:, 0]
        sums.add_quality(arm, contexts, (rng.random(events) < chance) * 1.0, np.ones(events))
    return sums


def median_ms(run: Callable[[], object], repeats: int) -> float:
    """Median CPU time of a call."""
    spent = []
    for _ in range(repeats):
        begun = time.process_time()
        run()
        spent.append(1000 * (time.process_time() - begun))
    return statistics.median(spent)


def memory(arms: list[str], d: int, events: int) -> dict[str, float]:
    """Megabytes of the state, as Python and numpy allocate it."""
    resident = resident_mb()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    sums = learned(arms, d, events)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    fitted = fit(sums, arms)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    manifest, records = to_records(
        fitted, sums, policy="p", version=1, published_at=NOW, encoder="e"
    )
    published = len(manifest.encode()) + sum(len(record.encode()) for record in records)
    return {
        "sums_mb": (held - before) / MB,
        "fit_mb": (kept - held) / MB,
        "peak_mb": (peak - held) / MB,
        "published_mb": published / MB,
        "resident_mb": resident_mb() - resident,
    }


def resident_mb() -> float:
    """The process's resident set; not a number where there is no /proc."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    found = [line for line in status.read_text().splitlines() if line.startswith("VmRSS:")]
    return float(found[0].split()[1]) * 1024 / MB


def measure(k: int, d: int, events: int, repeats: int) -> dict[str, float]:
    """One size's times and megabytes."""
    arms = [f"arm-{number}" for number in range(k)]
    weighed = memory(arms, d, events)
    sums = learned(arms, d, events)
    full = median_ms(lambda: fit(sums, arms), repeats)
    return {"K": k, "d": d, "fit_ms": full, **weighed}


def growth(rows: list[dict[str, float]], along: str, what: str) -> float | None:
    """The exponent of a time along K or d, each other size with a level of its own."""
    other = "d" if along == "K" else "K"
    levels = sorted({row[other] for row in rows})
    if len({row[along] for row in rows}) < 2:
        return None
    x = np.log([row[along] for row in rows])
    y = np.log([max(row[what], 1e-6) for row in rows])
    each = np.array([[row[other] == level for level in levels] for row in rows], dtype=np.float64)
    solved, *_ = np.linalg.lstsq(np.column_stack((x, each)), y, rcond=None)
    return float(solved[0])


def main() -> None:
    """Time and weigh every size; print a table and write JSON."""
    options = parser(__doc__, "refresh")
    options.add_argument("--arms", type=int, nargs="+", default=[3, 5, 12, 50])
    options.add_argument("--dimensions", type=int, nargs="+", default=[32, 128, 256, 384])
    options.add_argument("--events", type=int, default=500, help="of each arm")
    options.add_argument("--repeats", type=int, default=5)
    given = options.parse_args()
    say_versions()
    with threadpool_limits(limits=1, user_api="blas"):
        rows = [
            measure(k, d, given.events, given.repeats) for d in given.dimensions for k in given.arms
        ]
    columns = ("d", "K", "fit ms", "sums MB", "fit MB", "peak MB", "sent MB", "RSS")
    names = ("d", "K", "fit_ms", "sums_mb", "fit_mb", "peak_mb", "published_mb")
    lines = [[row[name] for name in (*names, "resident_mb")] for row in rows]
    show(f"a refresh after {given.events} events an arm", columns, lines)
    exponents: dict[str, Any] = {
        f"fit in {along}": growth(rows, along, "fit_ms") for along in ("K", "d")
    }
    show("growth", ("time", "exponent"), list(exponents.items()))
    write(given.json, {"rows": rows, "growth": exponents})


if __name__ == "__main__":
    main()
