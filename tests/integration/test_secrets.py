"""Keys stay where they were put: nothing that a run writes has one, whatever vendors say.

Every request is refused with an error that repeats the key it was sent with.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from metallm_stream.cli.main import cli
from metallm_stream.events import Feedback, Model, Query
from metallm_stream.kafka import Record, create, write
from metallm_stream.serve.probe import PROMPT
from tests.integration.test_cli import surroundings
from tests.pipeline import Pipeline
from tests.processes import eventually

SECRETS = {
    "openai": "sk-planted-openai-7f3a",
    "anthropic": "sk-ant-planted-8c41",
    "bedrock": "bedrock-planted-9d52",
    "access key": "AKIAPLANTED0E63",
    "secret key": "planted/secret+key/1f74",
    "session token": "planted//session==token",
    "header": "planted-header-2a85",
}
MODELS = {
    "recorded": "hosted",
    "claude": "claude-haiku-4-5",
    "bedrock": "us.meta.llama3-1-8b-instruct-v1:0",
    "signed": "amazon.titan-text-express-v1",
}
TEXT = "Is it so?"
GARBAGE = b"no record"


def provider_variables(pipeline: Pipeline) -> dict[str, str]:
    """Settings of every wire, keys from variables, a file and AWS' own credentials."""
    (pipeline.directory / "key").write_text(SECRETS["anthropic"] + "\n")
    address = pipeline.vendor_url.removesuffix("/v1")
    settings = {
        "RECORDED__BASE_URL": pipeline.vendor_url,
        "RECORDED__API_KEY_ENV": "RECORDED_KEY",
        "RECORDED__HEADERS": f'{{"X-Own": "{SECRETS["header"]}"}}',
        "CLAUDE__WIRE": "anthropic",
        "CLAUDE__BASE_URL": address,
        "CLAUDE__API_KEY_FILE": str(pipeline.directory / "key"),
        "BEDROCK__WIRE": "bedrock",
        "BEDROCK__REGION": "eu-west-1",
        "BEDROCK__BASE_URL": address,
        "BEDROCK__API_KEY_ENV": "BEDROCK_KEY",
        "SIGNED__WIRE": "bedrock",
        "SIGNED__REGION": "eu-west-1",
        "SIGNED__BASE_URL": address,
    }
    return {f"METALLM_PROVIDERS__{name}": value for name, value in settings.items()} | {
        "RECORDED_KEY": SECRETS["openai"],
        "BEDROCK_KEY": SECRETS["bedrock"],
        "AWS_ACCESS_KEY_ID": SECRETS["access key"],
        "AWS_SECRET_ACCESS_KEY": SECRETS["secret key"],
        "AWS_SESSION_TOKEN": SECRETS["session token"],
    }


@pytest.fixture
def refused(pipeline: Pipeline) -> Pipeline:
    """A vendor that refuses every request and repeats its key, an arm on each wire."""
    outcome = {arm: {"answer": "yes"} for arm in MODELS.values()}
    pipeline.record({TEXT: outcome, PROMPT: outcome}, "--fault", "unauthorized=1", key="")
    create(
        pipeline.kafka.admin(), pipeline.names, tuple(MODELS), partitions=2, replication_factor=1
    )
    arms = [Model(arm=arm, provider=name, model=arm) for name, arm in MODELS.items()]
    write(pipeline.producer, [Record.of(pipeline.names.models, arm.arm, arm) for arm in arms])
    return pipeline


def start_services(pipeline: Pipeline) -> None:
    """One after the other: together they would keep a small machine busy for long."""
    pipeline.start("router").wait_ready(60)
    pipeline.start("learner").wait_ready(60)
    variables = provider_variables(pipeline)
    for name in MODELS:
        worker = pipeline.start("worker", "--provider", name, slot=name, plain=variables)
        worker.wait_ready(60)


def written(pipeline: Pipeline) -> Iterator[tuple[str, bytes]]:
    """Everything that the run has written, with where it stands."""
    for path in sorted(pipeline.directory.glob("*.log")):
        yield path.name, path.read_bytes()
    for topic in pipeline.names.all(tuple(MODELS)):
        for message in pipeline.read(topic):
            headers = [value or b"" for _, value in message.headers() or []]
            yield topic, b"\n".join([message.key() or b"", message.value() or b"", *headers])
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'metallm'"
    for table in pipeline.sql(tables):
        rows = pipeline.sql(f"SELECT t::text AS row FROM metallm.{table['tablename']} AS t")  # noqa: S608
        yield str(table["tablename"]), "\n".join(str(row["row"]) for row in rows).encode()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield str(process), process.read_bytes()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue


def forms(secret: str) -> Iterator[bytes]:
    """A secret as it is, and as bytes of it may be shown."""
    yield secret.encode()
    yield secret.encode().hex().encode()
    yield base64.b64encode(secret.encode()).rstrip(b"=")


def leaks(places: Iterator[tuple[str, bytes]]) -> list[tuple[str, str]]:
    """Where which secret was found."""
    return [
        (place, name)
        for place, content in places
        for name, secret in SECRETS.items()
        if any(form in content for form in forms(secret))
    ]


def test_no_key_is_written_anywhere(refused: Pipeline) -> None:
    """Not to logs, topics, dead letters, tables or command lines."""
    start_services(refused)
    queries = [
        Query(query_id=f"{arm}-{n}", text=TEXT, models=(arm,))
        for arm in MODELS.values()
        for n in range(3)
    ]
    refused.ask(*queries)
    for name in MODELS:
        refused.produce(refused.names.calls(name), GARBAGE)
    for topic in (refused.names.queries, refused.names.decisions, refused.names.feedback):
        refused.produce(topic, GARBAGE)
    refused.judge(*(Feedback(query_id=query.query_id, score=0.0) for query in queries))
    results = refused.wait_for_results(len(queries))
    failures = [
        (attempt.arm, attempt.failure.kind, "***" in attempt.failure.message)
        for result in results.values()
        for attempt in result.attempts
        if attempt.failure is not None
    ]
    assert set(failures) == {(arm, "authentication", True) for arm in MODELS.values()}
    refused.wait_until_learned()
    letters = "SELECT count(DISTINCT topic) AS n FROM metallm.dead_letters"
    eventually(lambda: int(str(refused.sql(letters)[0]["n"])) >= 3)
    key_file = refused.directory / "key"
    assert leaks(iter([("key", key_file.read_bytes())])) == [("key", "anthropic")]
    places = list(written(refused))
    assert {place for place, _ in places} >= {"interactions", "dead_records", "worker-claude.log"}
    assert leaks(iter(places)) == []


def test_no_command_shows_a_key(refused: Pipeline) -> None:
    """Neither what a vendor repeats, nor the settings."""
    environment = surroundings(refused) | provider_variables(refused) | {"COLUMNS": "400"}
    shown = []
    for words in (["providers", "check", "--yes"], ["doctor"], ["models", "list"]):
        result = CliRunner(env=environment).invoke(cli, words, prog_name="metallm")
        shown.append((" ".join(words), result.output.encode()))
    assert shown[0][1].count(b"authentication: ") == len(MODELS)
    assert shown[0][1].count(b"***") >= len(MODELS)
    assert leaks(iter(shown)) == []
