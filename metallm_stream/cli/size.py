"""`metallm size`: how much machine a stream needs.

Invariant: it only computes; no server is asked.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from rich.table import Table

from metallm_stream.cli import sizing
from metallm_stream.cli.numbers import finite
from metallm_stream.cli.output import output
from metallm_stream.errors import counted

_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command("size")
@click.option("--queries-per-s", type=_POSITIVE, callback=finite, required=True,
              help="In the busiest minutes.")  # fmt: skip
@click.option("--label-share", type=click.FloatRange(0), callback=finite, default=0.5,
              show_default=True, help="Labels a query.")  # fmt: skip
@click.option("--arms", type=click.IntRange(1), default=4, show_default=True,
              help="Models in the catalogue.")  # fmt: skip
@click.option("--dimensions", type=click.IntRange(1), default=128, show_default=True,
              help="Of the encoder.")  # fmt: skip
@click.option("--characters", type=click.IntRange(1), default=500, show_default=True,
              help="Of a prompt, on average.")  # fmt: skip
@click.option("--latency-s", type=_POSITIVE, callback=finite, default=2.0, show_default=True,
              help="Of the vendors, on average.")  # fmt: skip
@click.option("--concurrency", type=click.IntRange(1), default=64, show_default=True,
              help="Of a worker: METALLM_WORKER__CONCURRENCY.")  # fmt: skip
@click.option("--copies", type=click.IntRange(1, 5), default=3, show_default=True,
              help="Of each record in Kafka.")  # fmt: skip
def size(**options: Any) -> None:  # noqa: ANN401 - one for each field of Workload
    """Tell how many cores, replicas, partitions and bytes a stream needs (docs/sizing.md)."""
    load = sizing.Workload(**options)
    need = sizing.size(load)
    table = Table("", "cores", "replicas", "MB each")
    for name, service in need.services.items():
        table.add_row(name, f"{service.cores:.2f}", str(service.replicas), str(service.memory_mb))
    table.add_row("kafka", f"{need.kafka_cores:.2f}", str(load.copies), "")
    table.add_row("postgres", f"{need.postgres_cores:.2f}", "1", "")
    console = output()
    console.print(table)
    say = partial(console.print, highlight=False, soft_wrap=True)
    say(f"{counted(need.partitions, 'partition')} a topic")
    say(
        f"Kafka: {need.kafka_in_mb_per_s:.2f} MB/s written, all copies together, and"
        f" {need.kafka_out_mb_per_s:.2f} MB/s read by the services;"
        f" {need.kafka_gb_a_day:.1f} GB a day on disk"
    )
    say(f"PostgreSQL: {need.postgres_gb_a_day:.1f} GB a day")
