"""How long it takes to evaluate a stored log, by SQL and by the command, and in how much memory.

    python benchmarks/evaluate_log.py --decisions 100000 --arms 5

Starts a PostgreSQL of its own and fills it with made-up decisions, all of them judged.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import NullPool, create_engine, text

from metallm_stream.embedded import EmbeddedStack, remove_state
from metallm_stream.postgres import database_url
from metallm_stream.postgres.migrate import migrate

FILL = text("""
    INSERT INTO metallm.interactions (
        query_id, day, arm, answered_by, propensity, decided_at, cost_usd, latency_s, quality,
        cost_weight, latency_weight, cost_scale_usd, decision, result
    )
    SELECT 'q' || i, '2026-03-01', 'arm' || mod(i, :arms), 'arm' || mod(i, :arms),
           1.0 / :arms, timestamptz '2026-03-01' + i * interval '1 millisecond', 0.001, 1,
           (random() < 0.7)::integer, 0.1, 0, 0.01,
           jsonb_build_object('candidates', (
               SELECT jsonb_agg(jsonb_build_object(
                   'arm', 'arm' || k, 'probability', 1.0 / :arms, 'quality', random(),
                   'cost_usd', 0.001, 'latency_s', 1, 'utility', random() + i * 0
               )) FROM generate_series(0, :arms - 1) AS k
           )),
           jsonb_build_object('attempts', jsonb_build_array())
    FROM generate_series(1, :decisions) AS i
""")


def main() -> None:
    """Fill a database, evaluate it twice, print seconds and megabytes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--decisions", type=int, default=100_000)
    parser.add_argument("--arms", type=int, default=5)
    options = parser.parse_args()
    state = Path(tempfile.mkdtemp())
    # Only PostgreSQL is needed: with an address given, no Kafka is started.
    with EmbeddedStack(state, bootstrap_servers="127.0.0.1:1") as stack:
        migrate(stack.database_url)
        engine = create_engine(database_url(stack.database_url), poolclass=NullPool)
        with engine.begin() as conn:
            conn.execute(text("SELECT metallm.ensure_day('2026-03-01')"))
            conn.execute(FILL, vars(options))
            conn.execute(text("ANALYZE metallm.interactions"))
        with engine.begin() as conn:
            started_s = time.perf_counter()
            rows = conn.execute(text("TABLE metallm.policy_values")).all()
            elapsed_s = time.perf_counter() - started_s
            print(
                f"SQL: {elapsed_s:.1f} s for {len(rows)} values of {rows[0].decisions:,} decisions"
            )
        evaluate(stack.database_url)
    remove_state(state)


def evaluate(url: str) -> None:
    """Run the command as a process of its own."""
    started_s = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "metallm_stream.cli", "evaluate", "--json"],
        env={**os.environ, "DATABASE_URL": url},
        check=True,
        capture_output=True,
    )
    elapsed_s = time.perf_counter() - started_s
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"metallm evaluate: {elapsed_s:.1f} s, {peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
