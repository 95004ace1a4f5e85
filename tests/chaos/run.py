"""Seeded faults over the whole service, judged from the outside.

    python -m tests.chaos.run --seeds 0-9 --queries 500

Starts one Kafka and one PostgreSQL, plays each seed's schedule on topics and a database of its
own, and prints a line a seed and a summary. Exits with 1 on any violation, whose history is
printed and kept in `--out`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tests.chaos.drive import CHUNK, STEP_S, Verdict, run
from tests.chaos.faults import draw
from tests.chaos.servers import open_servers

TARGETS_S = {"router": 3.0, "worker": 3.0, "learner": 6.0, "kafka": 12.0, "postgres": 5.0}


def main() -> int:
    """Play all seeds; 1 if any guarantee was broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=seeds, default=seeds("0-9"), help="Such as 3, or 0-9.")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument(
        "--kills-only",
        action="store_true",
        help="Only the kill that opens each schedule, to time how long it takes to recover.",
    )
    parser.add_argument("--out", type=Path, help="Where histories of violations are kept.")
    options = parser.parse_args()
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="metallm-chaos-") as place:
        directory = Path(place)
        directory.chmod(0o711)  # PostgreSQL's account passes through, if we are root
        with open_servers(directory / "state") as servers:
            for seed in options.seeds:
                began_s = time.monotonic()
                own = directory / f"seed-{seed}"
                own.mkdir()
                schedule = draw(seed, options.queries / CHUNK * STEP_S)
                if options.kills_only:
                    schedule = replace(schedule, faults=schedule.faults[:1], bad=0.0, vendor=())
                verdict = run(servers, schedule, options.queries, own)
                verdicts.append(verdict)
                tell(verdict, time.monotonic() - began_s, options.out)
    print(summary(verdicts))
    return int(any(verdict.violations for verdict in verdicts))


def seeds(given: str) -> range:
    """A number, or a range with both ends."""
    first, _, last = given.partition("-")
    return range(int(first), int(last or first) + 1)


def tell(verdict: Verdict, seconds: float, out: Path | None) -> None:
    """One line a seed, and the stories of what went wrong."""
    schedule = verdict.schedule
    faults = ", ".join(f"{fault.at_s:.1f} s {fault}" for fault in schedule.faults)
    back = ", ".join(
        f"{name} {', '.join(f'{one:.1f}' for one in found)} s"
        for name, found in sorted(verdict.recoveries.items())
    )
    vendor = ", ".join(f"{name} {rate:g}" for name, rate in schedule.vendor)
    print(
        f"seed {schedule.seed} ({schedule.profile}): {verdict.queries} queries in "
        f"{verdict.seconds:.1f} s of {seconds:.1f} s, {len(verdict.violations)} violations, "
        f"{verdict.extra_calls} extra calls; back after: {back or '-'}; rubbish {schedule.bad:g}; "
        f"vendor: {vendor or 'well'}; {faults}",
        flush=True,
    )
    if verdict.stories:
        told = "\n\n".join(verdict.stories)
        counts = {one.kind for one in verdict.violations}
        print(f"{sorted(counts)}\n{told}", flush=True)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / f"seed-{schedule.seed}.txt").write_text(told)


def summary(verdicts: Iterable[Verdict]) -> str:
    """Totals, and the recovery times beside what they should be."""
    verdicts = list(verdicts)
    found: dict[str, list[float]] = defaultdict(list)
    for verdict in verdicts:
        for name, times in verdict.recoveries.items():
            found[name] += times
    totals = (
        f"{len(verdicts)} schedules, {sum(one.queries for one in verdicts)} queries, "
        f"{sum(len(one.schedule.faults) for one in verdicts)} faults, "
        f"{sum(len(one.violations) for one in verdicts)} violations, "
        f"{sum(one.extra_calls for one in verdicts)} extra calls to the vendor"
    )
    lines = [totals]
    for name, target_s in TARGETS_S.items():
        times = sorted(found[name])
        if times:
            p90 = times[min(len(times) - 1, int(0.9 * len(times)))]
            lines.append(
                f"{name}: flows again after {statistics.median(times):.1f} s p50, {p90:.1f} s p90 "
                f"({len(times)} kills; p50 should be below {target_s:g} s)"
            )
    failed = [str(one.schedule.seed) for one in verdicts if one.violations]
    if failed:
        lines.append(f"again: python -m tests.chaos.run --seeds {failed[0]}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
