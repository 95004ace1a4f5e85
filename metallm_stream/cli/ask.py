"""`metallm ask` and `metallm feedback`: one query there and back, and one judgement."""

from __future__ import annotations

import time
import uuid

import click
from confluent_kafka import TopicPartition

from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Feedback, Query, Result
from metallm_stream.kafka import Record, write
from metallm_stream.serve.surroundings import connection, names
from metallm_stream.settings import Settings, load

CONNECT_TIMEOUT_S = 15.0


@click.command()
@click.argument("text")
@click.option("--query-id", help="Default: a random one.")
@click.option("--task", help="A name under which such queries are counted together.")
@click.option("--label", "labels", multiple=True, help="A possible answer; give it several times.")
@click.option("--model", "models", multiple=True, help="Allow only these arms.")
@click.option("--cost-weight", type=float, help="What cost counts against quality.")
@click.option("--max-cost-usd", type=float, help="No arm that is expected to cost more.")
@click.option("--timeout", "timeout_s", type=float, default=60.0, show_default=True)
def ask(
    text: str,
    query_id: str | None,
    task: str | None,
    labels: tuple[str, ...],
    models: tuple[str, ...],
    cost_weight: float | None,
    max_cost_usd: float | None,
    timeout_s: float,
) -> None:
    """Ask TEXT and wait for its result."""
    query = Query(
        query_id=query_id or uuid.uuid4().hex,
        text=text,
        task=task,
        labels=labels or None,
        models=models or None,
        cost_weight=cost_weight,
        max_cost_usd=max_cost_usd,
    )
    result = _answer(load(), query, timeout_s)
    if result.failure is not None:
        click.echo(f"query_id {result.query_id}")
        raise ConfigurationError(f"{result.failure.kind}: {result.failure.message}")
    click.echo(result.prediction if result.prediction is not None else result.text)
    click.echo(
        f"query_id {result.query_id} · {result.arm} · ${result.cost_usd:.6f} · "
        f"{result.latency_s:.2f} s",
        err=True,
    )


@click.command()
@click.argument("query_id")
@click.option("--label", help="The right answer.")
@click.option("--score", type=float, help="How good the answer was, 0 to 1.")
@click.option("--withdraw", is_flag=True, help="Take earlier feedback back.")
def feedback(query_id: str, label: str | None, score: float | None, withdraw: bool) -> None:
    """Judge the answer to QUERY_ID."""
    settings = load()
    parts: dict[str, object] = {"query_id": query_id, "label": label, "score": score}
    judgement = Feedback.model_validate({**parts, "withdrawn": withdraw})
    kafka = connection(settings, "metallm-cli")
    write(kafka.producer(), [Record.of(names(settings).feedback, query_id, judgement)])
    click.echo("noted")


def _answer(settings: Settings, query: Query, timeout_s: float) -> Result:
    kafka = connection(settings, "metallm-cli")
    topics = names(settings)
    consumer = kafka.reader()
    try:
        partitions = consumer.list_topics(topics.results, timeout=CONNECT_TIMEOUT_S)
        starts = [
            TopicPartition(topics.results, partition)
            for partition in partitions.topics[topics.results].partitions
        ]
        for start in starts:
            start.offset = consumer.get_watermark_offsets(start, CONNECT_TIMEOUT_S)[1]
        consumer.assign(starts)
        write(kafka.producer(), [Record.of(topics.queries, query.query_id, query)])
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for message in consumer.consume(100, 0.1):
                if message.error() is None and message.key() == query.query_id.encode():
                    return Result.parse(message.value())
    finally:
        consumer.close()
    raise ConfigurationError(
        f"no result for query_id {query.query_id!r} within {timeout_s:.0f} s: are router and "
        "worker running?"
    )
