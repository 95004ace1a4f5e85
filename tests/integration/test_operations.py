"""What those who run the services see: health, metrics, traces, and how services end."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Message
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from metallm_stream.embedded import Child
from metallm_stream.events import Feedback, Query, Result
from metallm_stream.kafka import Record, write
from metallm_stream.kafka.records import headers_of
from metallm_stream.postgres import claim_partition, load_offsets
from tests.pipeline import LABELS, Pipeline, open_pipeline, outcomes, questions
from tests.processes import eventually
from tests.readme import REPOSITORY

COUNT = 60
SERVICES = ("worker-0", "router-0", "learner-0")
PARENT = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
STATE = ("tracestate", b"congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")
LISTENS = re.compile(r"health and metrics at (http://\S+)")


@pytest.fixture(scope="module")
def observed(
    kafka_bootstrap: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    """All services with health and metrics on free ports."""
    directory = tmp_path_factory.mktemp("observed")
    with open_pipeline(kafka_bootstrap, database_url, directory) as opened:
        ledger = str(directory / "ledger.jsonl")
        opened.record(outcomes(questions(400)), "--ledger-file", ledger, labels=LABELS)
        opened.start_all(HTTP__PORT="0")
        yield opened


def get(pipeline: Pipeline, service: str, path: str) -> tuple[int, str]:
    """Status and body of a page of one service; status 0 where nobody listens."""
    found = LISTENS.findall((pipeline.directory / f"{service}.log").read_text())
    url = urlsplit(found[-1] if found else "http://127.0.0.1:1")
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def samples(pipeline: Pipeline, service: str) -> Counter[str]:
    """What a service has counted, by the sample's name, over all labels."""
    total: Counter[str] = Counter()
    for family in text_string_to_metric_families(get(pipeline, service, "/metrics")[1]):
        for sample in family.samples:
            total[sample.name] += sample.value
    return total


def wait_until_ready(pipeline: Pipeline, *services: str) -> None:
    """Return when all of them say so."""
    eventually(lambda: all(get(pipeline, name, "/readyz")[0] == 200 for name in services), 40)


def keyed(messages: list[Message], key: str) -> list[Message]:
    """Those with that key."""
    return [message for message in messages if message.key() == key.encode()]


def named(query: Query, query_id: str, **fields: object) -> bytes:
    """The value of a query's record under another id."""
    return query.model_copy(update={"query_id": query_id, **fields}).encode()


def test_every_service_says_that_it_lives_and_is_ready(observed: Pipeline) -> None:
    """And which partitions it has."""
    wait_until_ready(observed, *SERVICES)
    for service in SERVICES:
        assert get(observed, service, "/livez") == (200, "alive\n")
        assert json.loads(get(observed, service, "/readyz")[1]) == {"ready": True, "reason": None}
    assert samples(observed, "router-0")["metallm_partitions"] == 2


def test_services_show_dead_letters_of_their_topics_before_there_are_any(
    observed: Pipeline,
) -> None:
    """At 0, so that the first one is an increase; a worker and a router name the provider."""
    wait_until_ready(observed, *SERVICES)
    names = observed.names
    topics = (names.calls("recorded"),), (names.queries,), names.joined
    for service, own in zip(SERVICES, topics, strict=True):
        shown = get(observed, service, "/metrics")[1]
        for topic in own:
            assert f'metallm_dead_letters_total{{topic="{topic}"}} 0.0' in shown, topic
    assert 'provider="recorded",service="worker"' in get(observed, "worker-0", "/metrics")[1]
    eventually(
        lambda: 'metallm_arms{provider="recorded"} ' in get(observed, "router-0", "/metrics")[1]
    )


def test_metrics_tell_what_has_happened(observed: Pipeline) -> None:
    """What router, worker and learner count adds up to what was asked, and spent."""
    wait_until_ready(observed, *SERVICES)
    queries = questions(COUNT)
    observed.ask(*queries)
    results = observed.wait_for_results(COUNT)
    observed.judge(*(Feedback(query_id=query.query_id, label="yes") for query in queries))
    observed.wait_until_learned()
    routed = samples(observed, "router-0")
    assert routed["metallm_records_total"] == routed["metallm_decisions_total"] == COUNT
    assert 0 < routed["metallm_exploration_total"] < COUNT
    assert routed["metallm_transaction_seconds_count"] > 0
    worked = samples(observed, "worker-0")
    assert worked["metallm_results_total"] == COUNT
    assert worked["metallm_attempt_seconds_count"] == worked["metallm_attempts_total"] >= COUNT
    spent_usd = sum(result.cost_usd for result in results.values())
    assert worked["metallm_spend_usd_total"] == pytest.approx(spent_usd)
    eventually(lambda: samples(observed, "learner-0")["metallm_interactions_total"] == 3 * COUNT)
    learned = samples(observed, "learner-0")
    assert learned["metallm_records_total"] == 3 * COUNT
    assert learned["metallm_refresh_seconds_count"] > 0
    assert learned["metallm_sums_bytes"] > 0
    assert "metallm_sums_in_force_bytes" in learned
    eventually(lambda: samples(observed, "learner-0")["metallm_lag_records"] == 0)
    eventually(lambda: samples(observed, "router-0")["metallm_policy_version"] > 0)


def test_nothing_of_a_query_and_no_secret_is_a_label(observed: Pipeline) -> None:
    """Arms, topics and kinds are few; ids and texts are not."""
    wait_until_ready(observed, *SERVICES)
    for service in SERVICES:
        shown = get(observed, service, "/metrics")[1]
        assert "q1" not in shown
        assert "recorded-key" not in shown
        assert len(shown) < 30_000


def test_a_querys_trace_stands_on_all_that_follows_from_it(observed: Pipeline) -> None:
    """Its decision, call, result and dead letter; where there is none or nonsense, none."""
    names = observed.names
    before = len(observed.results())
    sent = {
        "traced": (PARENT, STATE),
        "stateless": (PARENT, ("tracestate", b"=")),
        "nonsense": (("traceparent", b"00-nonsense"), STATE),
        "untraced": (),
    }
    asked = [
        Record(names.queries, query_id.encode(), named(query, query_id), headers=headers)
        for (query_id, headers), query in zip(sent.items(), questions(len(sent)), strict=True)
    ]
    asked.append(Record(names.queries, b"broken", b"{", headers=(PARENT, STATE)))
    refused = named(questions(1)[0], "refused", models=("gone",))
    asked.append(Record(names.queries, b"refused", refused, headers=(PARENT, STATE)))
    write(observed.producer, asked)
    observed.wait_for_results(before + len(sent) + 1)
    carried = dict(sent) | {"stateless": (PARENT,), "nonsense": (), "refused": (PARENT, STATE)}
    results, decisions = observed.read(names.results), observed.read(names.decisions)
    calls = observed.read(names.calls("recorded"))
    for query_id, trace in carried.items():
        (result,) = keyed(results, query_id)
        (decision,) = keyed(decisions, query_id)
        assert tuple(headers_of(result)) == trace, query_id
        assert tuple(headers_of(decision))[1:] == trace, query_id
        call_id = Result.parse(result.value()).call_id
        if call_id is not None:
            assert tuple(headers_of(keyed(calls, call_id)[0])) == trace, query_id
    (dead,) = observed.dead_letters(names.queries)
    assert headers_of(dead)[:2] == [PARENT, STATE]


def test_a_service_that_is_told_to_stop_ends_its_work_and_leaves(observed: Pipeline) -> None:
    """SIGTERM in mid-stream: exit code 0, no call is made twice, and nothing is lost or doubled."""
    before = set(observed.results())
    queries = questions(160, start=200)
    ledger = observed.directory / "ledger.jsonl"
    paid = len(ledger.read_text().splitlines())
    observed.ask(*queries)
    eventually(lambda: len(ledger.read_text().splitlines()) > paid + 20)
    children = observed.supervisor.children
    for name in SERVICES:
        end(children[name])
    eventually(lambda: all(children[name].exit_codes for name in SERVICES), 40)
    assert {children[name].exit_codes for name in SERVICES} == {(0,)}, observed.logs()
    observed.wait_for_results(len(before) + len(queries))
    calls = [message.key() for message in observed.read(observed.names.calls("recorded"))]
    assert len(ledger.read_text().splitlines()) == paid + len(queries)
    assert len(set(calls)) == len(calls)
    observed.wait_until_learned()
    observed.assert_sound({*before, *(query.query_id for query in queries)})


def end(child: Child) -> None:
    """SIGTERM a running child; its supervisor starts it again."""
    pid = child.pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)


def test_the_runbooks_statement_gives_up_deleted_records_alone(engine: Engine) -> None:
    """Of the partitions that it names, those move whose next record is no longer there."""
    runbooks = (REPOSITORY / "docs" / "operations.md").read_text()
    (statement,) = re.findall(r"```sql\n(\s+UPDATE .*?;)\n", runbooks, re.DOTALL)
    before = {("decisions", 0): 7, ("decisions", 1): 60_000, ("decisions", 2): 7, ("results", 0): 7}
    with engine.begin() as conn:
        for (topic, partition), next_offset in before.items():
            claim_partition(conn, topic, partition, next_offset)
        assert conn.execute(text(statement)).rowcount == 1
        assert load_offsets(conn) == before | {("decisions", 0): 48_213}
