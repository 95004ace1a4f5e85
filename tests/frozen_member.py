"""A member of a group, as a process, that is stopped in the middle of a rebalance.

    python -m tests.frozen_member BOOTSTRAP QUERIES RESULTS GROUP SLOT COUNT

Takes COUNT records and finishes none. As soon as it has given a partition up it stops itself, as by
SIGSTOP. Once it goes on it copies what it still holds, until the group has spoken and all is
committed. Ends with 70 where it must not go on.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from metallm_stream.errors import Fenced
from metallm_stream.kafka import Connection, ExactlyOnce, Partition, Record, Work

WITHIN_S = 60.0


def main() -> int:
    """Take, be stopped, copy."""
    bootstrap, queries, results, group, slot, count = sys.argv[1:]
    dropped: list[Partition] = []

    def stop(partitions: list[Partition]) -> None:
        if not dropped:
            dropped.extend(partitions)
            os.kill(os.getpid(), signal.SIGSTOP)

    loop = ExactlyOnce(Connection(bootstrap), [queries], group=group, slot=slot, on_dropped=stop)
    loop.start()
    works: list[Work] = []
    deadline_s = time.monotonic() + WITHIN_S
    try:
        while len(works) < int(count) or not dropped:
            works += loop.take(int(count), 0.1)
            if len(works) == int(count):
                os.write(1, b"took all\n")
            if time.monotonic() > deadline_s:
                return 1
        for work in works:
            record = Record(results, work.message.key(), work.message.value())
            loop.complete(work, [record])
        went_on_s = time.monotonic()
        while time.monotonic() < went_on_s + 10:
            loop.commit()
            loop.take(1, 0.1)
        loop.close()
    except Fenced:
        return 70
    return 0


if __name__ == "__main__":
    os._exit(main())  # as a service that must not go on
