"""Fuzz all input topics of real services: `python -m tests.fuzz --records 10000 --seed 0`.

Starts Kafka and PostgreSQL of its own. Exits with 1 if a service stops or a record is not
accounted for.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from metallm_stream.embedded import EmbeddedStack, remove_state
from tests.fuzz.run import Fuzz, summary
from tests.pipeline import LABELS, open_pipeline, outcomes, questions


def main() -> int:
    """Send the records and tell what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="metallm-fuzz-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # PostgreSQL's account passes through, if we are root
        try:
            return run(directory, arguments.records, arguments.seed)
        finally:
            remove_state(directory / "state")


def run(directory: Path, records: int, seed: int) -> int:
    """One run on servers of its own; 0 if nothing stopped and nothing is lost."""
    with (
        EmbeddedStack(directory / "state") as servers,
        open_pipeline(servers.bootstrap_servers, servers.database_url, directory) as pipeline,
    ):
        pipeline.record(outcomes(questions(10)), labels=LABELS)
        children = pipeline.start_all()
        began = time.monotonic()
        fuzz = Fuzz(pipeline, seed)
        try:
            fuzz.send(records)
            fuzz.wait(600)
            fates = fuzz.fates(60)
        except AssertionError as exc:
            sys.stdout.write(f"{exc}\n{pipeline.logs(30)}\n")
            return 1
        finally:
            stops = {name: child.exit_codes for name, child in children.items()}
        lost = [line for fate in fates.values() for line in fate.lost]
        took_s = time.monotonic() - began
        stopped = sum(map(len, stops.values()))
        told = [summary(fates), f"{records} records in {took_s:.0f} s; stops: {stopped}", *lost]
        sys.stdout.write("\n".join(told) + "\n")
        return int(bool(lost or stopped))


if __name__ == "__main__":
    sys.exit(main())
