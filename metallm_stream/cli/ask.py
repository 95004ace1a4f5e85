"""`metallm ask` and `metallm feedback`: one query there and back, and one judgement."""

from __future__ import annotations

import time
import uuid
from contextlib import closing

import click
from confluent_kafka import Consumer

from metallm_stream.cli.cluster import cluster, ends
from metallm_stream.cli.decision_table import decision_table
from metallm_stream.cli.numbers import NOT_NEGATIVE, finite
from metallm_stream.cli.output import output
from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Choice, Decision, Feedback, Number, Query, Result
from metallm_stream.kafka import Record, raise_unless_passing, write
from metallm_stream.serve.surroundings import names
from metallm_stream.settings import Settings, load

STRAGGLER_S = 2.0


@click.command()
@click.argument("text")
@click.option("--query-id", help="Default: a random one.")
@click.option("--task", help="A name under which such queries are counted together.")
@click.option("--label", "labels", multiple=True, help="A possible answer; give it several times.")
@click.option("--option", "options", multiple=True, help="An option of a multiple choice.")
@click.option("--number", is_flag=True, help="The answer is a number.")
@click.option("--model", "models", multiple=True, help="Allow only these arms.")
@click.option("--cost-weight", type=float, help="What cost counts against quality.")
@click.option("--max-cost-usd", type=float, help="No arm that is expected to cost more.")
@click.option(
    "--timeout",
    "timeout_s",
    type=NOT_NEGATIVE,
    callback=finite,
    default=60.0,
    show_default=True,
    help="Seconds to wait for the result.",
)
def ask(
    text: str,
    query_id: str | None,
    task: str | None,
    labels: tuple[str, ...],
    options: tuple[str, ...],
    number: bool,
    models: tuple[str, ...],
    cost_weight: float | None,
    max_cost_usd: float | None,
    timeout_s: float,
) -> None:
    """Ask TEXT, wait for its result, and show why the model that answered was chosen.

    The answer goes to standard output, everything else to standard error.
    """
    if options and number:
        raise click.UsageError("--option and --number exclude each other")
    choice = Choice(kind="choice", options=options) if options else None
    query = Query(
        query_id=query_id or uuid.uuid4().hex,
        text=text,
        task=task,
        labels=labels or None,
        answer=Number(kind="number") if number else choice,
        models=models or None,
        cost_weight=cost_weight,
        max_cost_usd=max_cost_usd,
    )
    result, decision = _answer(load(), query, timeout_s)
    if result.failure is None:
        click.echo(result.prediction if result.prediction is not None else result.text)
    click.echo(
        f"query_id {result.query_id} · {result.arm or 'no answer'} · {shown_cost(result)} · "
        f"{result.latency_s:.2f} s",
        err=True,
    )
    if decision is not None and decision.candidates:
        output(stderr=True).print(decision_table(decision, answered_by=result.arm))
    if result.failure is not None:
        raise ConfigurationError(f"{result.failure.kind}: {result.failure.message}")


@click.command()
@click.argument("query_id")
@click.option("--label", help="The right answer.")
@click.option("--score", type=float, help="How good the answer was, 0 to 1.")
@click.option("--withdraw", is_flag=True, help="Take earlier feedback back.")
def feedback(query_id: str, label: str | None, score: float | None, withdraw: bool) -> None:
    """Judge the answer to QUERY_ID: with --label, with --score, or with --withdraw."""
    parts: dict[str, object] = {"query_id": query_id, "label": label, "score": score}
    judgement = Feedback.model_validate({**parts, "withdrawn": withdraw})
    settings = load()
    topic = names(settings).feedback
    write(cluster(settings).producer(), [Record.of(topic, query_id, judgement)])
    click.echo("noted")


def shown_cost(result: Result) -> str:
    """What a result has cost, which is not 0 where nobody knows what the answer did."""
    answers = [attempt for attempt in result.attempts if attempt.failure is None]
    is_known = all(attempt.cost_usd is not None for attempt in answers)
    return f"${result.cost_usd:.6f}" if is_known else "cost unknown"


def _answer(settings: Settings, query: Query, timeout_s: float) -> tuple[Result, Decision | None]:
    kafka, topics = cluster(settings), names(settings)
    with closing(kafka.reader()) as consumer:
        consumer.assign(ends(consumer, topics.decisions) + ends(consumer, topics.results))
        write(kafka.producer(), [Record.of(topics.queries, query.query_id, query)])
        found = _wait(consumer, query.query_id, topics.results, time.monotonic() + timeout_s)
    decided = found.get(topics.decisions)
    decision = None if decided is None else Decision.parse(decided)
    if topics.results not in found:
        raise ConfigurationError(_nothing(query.query_id, decision, timeout_s))
    return Result.parse(found[topics.results]), decision


def _wait(consumer: Consumer, query_id: str, last: str, deadline: float) -> dict[str, bytes]:
    """The query's records by topic, as soon as there is one on `last` and one on another.

    The other was committed before, but it may be fetched after.
    """
    found: dict[str, bytes] = {}
    while len(found) < 2 and time.monotonic() < deadline:
        if last in found:
            deadline = min(deadline, time.monotonic() + STRAGGLER_S)
        for message in consumer.consume(100, 0.1):
            error = message.error()
            if error is not None:
                raise_unless_passing(error)
            elif message.key() == query_id.encode():
                found[str(message.topic())] = message.value() or b""
    return found


def _nothing(query_id: str, decision: Decision | None, timeout_s: float) -> str:
    start = f"no result for query_id {query_id!r} within {timeout_s:g} s: "
    if decision is None:
        return start + (
            "it got no decision; is a router running, and is this query_id a new one? "
            "`metallm doctor` tells more"
        )
    return start + (
        f"{decision.arm} was chosen, but nothing came back; is a worker of its provider running? "
        "`metallm doctor` tells more"
    )
