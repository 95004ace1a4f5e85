"""The bare exactly-once loop: consume, write some records for each, commit; a router's bound.

    python -m benchmarks.stream.bare_kafka HOST:PORT FROM TO TO --records 20000 --batch 500

Nothing is decided and nothing is encoded: the records written have the sizes of a decision and a
call. Prints one JSON object. With `--eager` it takes what is there and waits for no more, as a loop
does that is to be quick.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from benchmarks.stream.bare import sustained
from metallm_stream.kafka import Connection, offset_of, partition_of

SETTLE_S = 10.0


def main() -> None:
    """Work the source off, once."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bootstrap")
    parser.add_argument("source")
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--bytes", type=int, nargs="+", default=(1_500, 700))
    parser.add_argument("--name", default="bare-loop")
    parser.add_argument("--eager", action="store_true")
    options = parser.parse_args()
    print(json.dumps(run(options)))


def _from_the_first_record(consumer: Consumer, partitions: list[TopicPartition]) -> None:
    for where in partitions:
        where.offset = OFFSET_BEGINNING
    consumer.incremental_assign(partitions)


def run(options: argparse.Namespace) -> dict[str, float]:
    """Records a second, and what a commit takes."""
    connection = Connection(options.bootstrap)
    producer = connection.transactional_producer(options.name)
    producer.init_transactions(SETTLE_S)
    consumer = connection.group_consumer(options.name, f"{options.name}-0")
    consumer.subscribe([options.source], on_assign=_from_the_first_record)
    values = [np.random.default_rng(0).bytes(size // 2).hex().encode() for size in options.bytes]
    ended_s: list[float] = []
    commits_s: list[float] = []
    cpu_s = time.process_time()
    while len(ended_s) < options.records:
        taken = (
            _eagerly(consumer, options.batch)
            if options.eager
            else consumer.consume(options.batch, 0.02)
        )
        messages = [item for item in taken if item.error() is None]
        if not messages:
            continue
        began_s = time.perf_counter()
        producer.begin_transaction()
        for message in messages:
            for target, value in zip(options.targets, values, strict=True):
                producer.produce(target, key=message.key(), value=value)
            producer.poll(0)
        offsets = {partition_of(message): offset_of(message) + 1 for message in messages}
        producer.send_offsets_to_transaction(
            [TopicPartition(*key, offset) for key, offset in offsets.items()],
            consumer.consumer_group_metadata(),
            SETTLE_S,
        )
        producer.commit_transaction(SETTLE_S)
        commits_s.append(time.perf_counter() - began_s)
        ended_s += [time.perf_counter()] * len(messages)
    cpu_s = time.process_time() - cpu_s
    consumer.close()
    return {
        "records_per_s": sustained(ended_s),
        "cpu_us_per_record": 1e6 * cpu_s / len(ended_s),
        "commit_ms_p50": 1e3 * float(np.median(commits_s)),
        "records_per_commit": len(ended_s) / len(commits_s),
    }


def _eagerly(consumer: Consumer, batch: int) -> list[Message]:
    first = consumer.poll(0.02)
    return [] if first is None else [first, *consumer.consume(batch - 1, 0)]


if __name__ == "__main__":
    main()
