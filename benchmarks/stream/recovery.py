"""How long a stream stands still after a kill.

    python -m benchmarks.stream.recovery --kills 10

One router, worker and learner, Kafka and PostgreSQL, each restarted by its supervisor and by
nobody else, are asked evenly. Victims are killed with SIGKILL in turn. For a service, a broker or a
database the time runs from the kill until the first query that was written after it has come
through: has its result, and where PostgreSQL or the learner was killed, its row in SQL. Prints one
JSON object with all times in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg

from benchmarks.stream.footprint import wait
from benchmarks.stream.load import PROVIDER, Load, open_vendor, texts
from benchmarks.stream.stage import Stage, open_stage
from benchmarks.stream.throughput import libpq
from metallm_stream.embedded import Child

ASKED_S = {"router": 3.0, "worker": 3.0, "learner": 6.0, "kafka": 12.0, "postgres": 5.0}
WITHIN_S = 120.0
CALM_S = 5.0  # flows before a kill
Came = Callable[[str], bool]


def main() -> None:
    """Kill, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=5, help="Of each victim.")
    parser.add_argument("--rate", type=float, default=20, help="Queries a second.")
    parser.add_argument("--victims", default=",".join(ASKED_S))
    options = parser.parse_args()
    with open_stage(PROVIDER, learns=True) as stage:
        print(json.dumps(run(stage, options), indent=2))


def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """The time of each kill, and their median beside what is asked."""
    asked = texts(500, 300)
    open_vendor(stage, asked, 4, "--latency-mean-s", "0.05", "--latency-sigma", "0")
    children: Mapping[str, Child] = {
        "router": stage.start("router"),
        "worker": stage.start("worker", "--provider", PROVIDER),
        "learner": stage.start("learner"),
        **{name: stage.supervisor.children[name] for name in ("kafka", "postgres")},
    }
    victims = options.victims.split(",")
    found: dict[str, list[float]] = {victim: [] for victim in victims}
    with Load(stage, asked, rate=options.rate, label_share=1.0) as load:
        for _ in range(options.kills):
            for victim in victims:
                stored = victim in ("learner", "postgres")
                came = _Stored(stage) if stored else load.answered_s.__contains__
                _calm(load, came)
                found[victim].append(_killed(children[victim], load, came))
                print(f"{victim}: {found[victim][-1]:.2f} s", file=sys.stderr, flush=True)
        load.wait(WITHIN_S)
    return {
        victim: {
            "p50_s": round(statistics.median(times), 2),
            "asked_s": ASKED_S[victim],
            "all_s": [round(one, 2) for one in sorted(times)],
        }
        for victim, times in found.items()
    }


class _Stored:
    """Whether a query's row is in SQL."""

    def __init__(self, stage: Stage) -> None:
        self._url = libpq(stage.database_url)

    def __call__(self, query_id: str) -> bool:
        try:
            with psycopg.connect(self._url, autocommit=True) as conn:
                found = conn.execute(
                    "SELECT 1 FROM metallm.interactions WHERE query_id = %s", (query_id,)
                )
                return found.fetchone() is not None
        except psycopg.OperationalError:
            return False  # PostgreSQL is not back


def _calm(load: Load, came: Came) -> None:
    """Wait until queries come through at once, and for some seconds more."""
    _first_through(load, time.monotonic(), came)
    time.sleep(CALM_S)


def _killed(victim: Child, load: Load, came: Came) -> float:
    pid = victim.pid
    assert pid is not None, f"{victim.name} does not run"
    began_s = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return _first_through(load, began_s, came) - began_s


def _first_through(load: Load, since_s: float, came: Came) -> float:
    """When one of the first queries written after a moment had come through."""
    wait("queries are asked", lambda: next(_after(load, since_s), None) is not None, every_s=0.01)
    first = next(_after(load, since_s))
    wait("queries come through again", lambda: came(first), every_s=0.01)
    return time.monotonic()


def _after(load: Load, since_s: float) -> Iterator[str]:
    return (key for key, at_s in list(load.asked_s.items()) if at_s > since_s)


if __name__ == "__main__":
    main()
