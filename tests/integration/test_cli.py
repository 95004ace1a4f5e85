"""Commands against running services, as a person runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from sqlalchemy import text

from metallm_stream.arms import Catalogue
from metallm_stream.cli.main import cli
from metallm_stream.events import Feedback, Model, PolicyManifest, Price
from metallm_stream.kafka import Record, topic_ids, write
from metallm_stream.postgres import Advance, advance, claim_partition
from metallm_stream.serve.knowledge import Knowledge
from tests.pipeline import ENCODER, KEY, Pipeline, fresh_database, questions
from tests.processes import eventually

Run = Callable[..., Result]


def surroundings(pipeline: Pipeline) -> dict[str, str | None]:
    """What a shell beside the pipeline has set."""
    ours = {name: None for name in os.environ if name.startswith(("METALLM_", "KAFKA_"))}
    return ours | {
        "KAFKA_BOOTSTRAP_SERVERS": pipeline.bootstrap,
        "DATABASE_URL": pipeline.database_url,
        "METALLM_TOPICS__PREFIX": pipeline.names.prefix,
        "METALLM_ENCODER": ENCODER,
        "METALLM_PROVIDERS__RECORDED__BASE_URL": "http://127.0.0.1:9/v1",
        "METALLM_PROVIDERS__RECORDED__API_KEY_ENV": "RECORDED_KEY",
        "RECORDED_KEY": KEY,
    }


def run(pipeline: Pipeline, *words: str, **environment: str | None) -> Result:
    """A command's result, beside the pipeline."""
    runner = CliRunner(env=surroundings(pipeline) | environment)
    return runner.invoke(cli, words, prog_name="metallm")


def catalogue(pipeline: Pipeline) -> Catalogue:
    """The catalogue as its topic has it."""
    knowledge = Knowledge(pipeline.kafka, pipeline.names, None)
    knowledge.catch_up()
    knowledge.close()
    return knowledge.catalogue


def flat(result: Result) -> str:
    """All that was printed, with single spaces."""
    return " ".join(result.output.split())


def test_ask_prints_the_answer_and_shows_why(running: Pipeline) -> None:
    """The answer alone on standard output; candidates with the chosen one marked beside it."""
    question = questions(1)[0].text
    words = ["ask", question, "--label", "yes", "--label", "no", "--query-id", "asked"]
    result = run(running, *words, DATABASE_URL=None)
    assert result.exit_code == 0, result.output
    assert result.stdout in ("yes\n", "no\n")
    for shown in ("query_id asked", "probability", "utility", "large", "small", "cost weight 0.1"):
        assert shown in result.stderr
    assert len(re.findall(r"\bchosen\b", result.stderr)) == 1
    again = run(running, *words, "--timeout", "2")
    assert again.exit_code == 1
    assert "is this query_id a new one?" in again.stderr


def test_ask_tells_why_no_model_will_do(running: Pipeline) -> None:
    """The failure's kind and reason, in the last line."""
    result = run(running, "ask", "Anything?", "--model", "gone")
    assert (result.exit_code, result.stdout) == (1, "")
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: no_arm: ")
    assert "gone" in last


def test_feedback_reaches_the_learner(running: Pipeline) -> None:
    """A score given at the command line is the query's quality."""
    running.ask(questions(1, start=7)[0])
    assert run(running, "feedback", "q7", "--score", "0.25").stdout == "noted\n"
    statement = "SELECT quality FROM metallm.interactions WHERE query_id = 'q7'"
    eventually(lambda: [row["quality"] for row in running.sql(statement)] == [0.25])
    shown = run(running, "explain", "q7")
    assert shown.exit_code == 0
    for part in ("probability", "large", "small", "chosen", "decided by ridge-elimination, "):
        assert part in flat(shown)
    run(running, "ask", "Anything?", "--model", "gone", "--query-id", "hopeless")
    eventually(lambda: "no answer: " in run(running, "explain", "hopeless").stdout)
    missing = run(running, "explain", "never-asked")
    assert "no decision is known for query_id 'never-asked'" in missing.stderr


def test_watch_once_shows_arms_and_the_line_above_them(running: Pipeline) -> None:
    """As the views have it: shares add up, spend is there, and the policy's version."""
    asked = questions(60, start=100)
    running.ask(*asked)
    running.judge(*(Feedback(query_id=query.query_id, label="yes") for query in asked))
    labelled = "SELECT sum(labelled) AS n FROM metallm.arms"
    eventually(lambda: int(str(running.sql(labelled)[0]["n"] or 0)) >= 60)
    eventually(lambda: running.sql("SELECT 1 AS one FROM metallm.policy_now"))
    result = run(running, "watch", "--once", COLUMNS="80", KAFKA_BOOTSTRAP_SERVERS=None)
    assert result.exit_code == 0, result.output
    head, lag = result.stdout.splitlines()[:2]
    assert re.match(r"lag [\d,]+ records?, \d+ s ago · dead letters 0$", lag.rstrip()), lag
    found = re.match(r"([\d.]+) queries/s in the last minute · policy (\d+), \d+ s old", head)
    assert found is not None, head
    assert float(found[1]) >= 1.0
    rows = {
        line.split()[0]: line.split()
        for line in result.stdout.splitlines()
        if line.strip().startswith(("large", "small"))
    }
    for arm in running.sql("SELECT * FROM metallm.arms"):
        if arm["arm"] not in rows:
            continue
        cells = rows[str(arm["arm"])]
        assert cells[1] == f"{arm['decisions']:,}"
        assert cells[3] == f"{arm['share']:.1%}"
        assert cells[8] == f"{arm['cost_usd']:,.4f}"
    assert sum(float(cells[2].rstrip("%")) for cells in rows.values()) == pytest.approx(100, abs=1)


def test_watch_without_tables_names_the_command_that_makes_them(running: Pipeline) -> None:
    """In one line."""
    with fresh_database(running.database_url) as url:
        result = run(running, "watch", "--once", DATABASE_URL=url)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: PostgreSQL lacks")
    assert "metallm db upgrade" in result.stderr


def test_models_are_added_repriced_listed_and_removed(running: Pipeline) -> None:
    """A new price keeps the rest of the record, and of the price what was not given."""
    words = ["models", "add", "third", "--provider", "spare", "--model", "vendor/third"]
    typo = run(running, *words)
    assert typo.exit_code == 1
    assert "provider 'spare' is not in these settings (there are: recorded)" in typo.stderr
    assert "third" not in catalogue(running)
    words.append("--elsewhere")
    can = ("--max-output", "500", "--language", "de", "--region", "eu", "--region", "us")
    added = run(running, *words, "--context-window", "8000", "--tag", "cheap", *can)
    assert added.exit_code == 0, added.output
    assert (
        "third: no price: costs are what the vendor reports, and unknown where it" in added.stdout
    )
    before = catalogue(running)["third"]
    assert (before.max_output_tokens, before.tags) == (500, ("cheap",))
    assert (before.languages, before.regions) == (("de",), ("eu", "us"))
    prices = ("--input-usd", "1", "--output-usd", "4")
    first = run(running, "models", "reprice", "third", *prices, "--cached-input-usd", "0.5")
    assert "repriced third: the vendor's price → $1 in, $4 out, $0.5 cached in" in first.stdout
    assert "note: price of third: where the vendor reports what a call costs" in first.stderr
    again = ("--input-usd", "2", "--output-usd", "8", "--call-usd", "0.01")
    assert run(running, "models", "reprice", "third", *again).exit_code == 0
    price = Price(
        input_usd_per_mtok=2, output_usd_per_mtok=8, cached_input_usd_per_mtok=0.5, call_usd=0.01
    )
    assert catalogue(running)["third"] == Model(**(dict(before) | {"price": price}))
    shown = run(running, "models", "list", COLUMNS="120")
    assert "vendor/third" in shown.stdout
    assert "note: price of third: " in shown.stderr
    assert run(running, "models", "remove", "third").exit_code == 0
    assert "third" not in catalogue(running)


def test_an_arm_whose_worker_has_no_key_here_is_added_with_a_note(running: Pipeline) -> None:
    """Its share of the queries would wait for that worker."""
    words = ("models", "add", "keyless", "--provider", "recorded")
    added = run(running, *words, RECORDED_KEY=None)
    assert added.exit_code == 0, added.output
    assert "note: RECORDED_KEY is not set, so no worker of 'recorded' can run here" in added.stderr
    assert run(running, *words).stderr == ""
    assert run(running, "models", "remove", "keyless").exit_code == 0


def test_an_arm_without_a_price_has_that_of_the_table(running: Pipeline) -> None:
    """With its context window; one's own price takes the table's place, and none is refused."""
    arm = "anthropic/claude-sonnet-4-5"
    added = run(running, "models", "add", arm, "--elsewhere")
    assert added.stdout == (
        f"added {arm}: $3 in, $15 out, $0.3 cached in per 10⁶ tokens, "
        "by the price table of anthropic\n"
    )
    record = catalogue(running)[arm]
    assert (record.provider, record.model) == ("anthropic", "claude-sonnet-4-5")
    assert record.context_window_tokens == 200_000
    words = ("models", "reprice", arm, "--input-usd", "2", "--output-usd", "8")
    repriced = run(running, *words)
    assert (repriced.exit_code, repriced.stderr) == (0, "")  # which reports no costs
    price = catalogue(running)[arm].price
    assert price is not None
    assert (price.input_usd_per_mtok, price.table) == (2, None)
    assert run(running, "models", "remove", arm).exit_code == 0
    unknown = run(running, "models", "add", "anthropic/nobody-knows")
    assert unknown.exit_code == 1
    assert "give --input-usd and --output-usd" in unknown.stderr


def test_an_arm_that_is_not_there_cannot_be_repriced_or_removed(running: Pipeline) -> None:
    """The line names those that are."""
    prices = ("--input-usd", "1", "--output-usd", "4")
    for words in (["models", "reprice", "gone", *prices], ["models", "remove", "gone"]):
        result = run(running, *words)
        assert result.exit_code == 1
        assert "arm 'gone' is not in the catalogue (there are: large, small)" in result.stderr
    bad = run(running, "models", "reprice", "large", "--input-usd", "-1", "--output-usd", "1")
    assert "input_usd_per_mtok: " in bad.stderr
    assert catalogue(running)["large"].price is None


def test_doctor_finds_nothing_wrong_where_all_runs(running: Pipeline) -> None:
    """Each part has its line, and the exit code is 0."""
    running.probe()  # whoever says that it is ready may yet have to join its group
    eventually(lambda: running.sql("SELECT 1 AS one FROM metallm.policy_now"))
    result = run(running, "doctor")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for start in (
        *("python", "packages", "settings", "provider recorded", "encoder", "kafka", "topics"),
        *("models", "policy", "services", "postgresql", "schema", "learner"),
    ):
        assert any(line.startswith(f"ok       {start}: ") for line in lines), (start, lines)
    assert "ok       services: 1 router, 1 learner, 1 worker-recorded" in lines
    assert "RECORDED_KEY is set" in result.stdout
    assert KEY not in result.output
    assert "0 problems" in lines[-1]


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        (
            {"METALLM_TOPICS__PREFIX": "nowhere."},
            "problem  topics: missing, or not visible to this user: nowhere.queries, ",
        ),
        ({"METALLM_ENCODER": "wordllama:64"}, "problem  policy: learned with encoder wordllama-32"),
        ({"RECORDED_KEY": None}, "warning  provider recorded: RECORDED_KEY is not set"),
        ({"DATABASE_URL": None}, "problem  postgresql: DATABASE_URL is not set"),
        ({"KAFKA_BOOTSTRAP_SERVERS": None}, "problem  kafka: KAFKA_BOOTSTRAP_SERVERS is not set"),
        ({"KAFKA_BOOTSTRAP_SERVERS": ""}, "problem  kafka: KAFKA_BOOTSTRAP_SERVERS is not set"),
        ({"KAFKA_SASL_MECHANSIM": "PLAIN"}, "problem  kafka: Kafka's client does not take its"),
        ({"METALLM_ROUTER__POLICY": "best"}, "problem  router: unknown policy 'best'"),
        (
            {"METALLM_ROUTER__POLICY": "fixed:larg"},
            "warning  models: METALLM_ROUTER__POLICY=fixed:larg: 'larg' is not in the catalogue",
        ),
        (
            {"METALLM_TEMPLATES_DIR": "/none"},
            "problem  templates: templates: /none is no directory",
        ),
        (
            {
                "METALLM_JUDGE__PROVIDER": "openai",
                "METALLM_JUDGE__MODEL": "unpriced",
                "METALLM_JUDGE__SPEND_CAP_USD": "1",
            },
            "problem  judge: the price of the judge model 'unpriced'",
        ),
        (
            {"METALLM_PROVIDERS__RECORDED__BASE_URL": "localhost/v1"},
            "problem  provider recorded: provider 'recorded': METALLM_PROVIDERS__RECORDED__BASE",
        ),
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "problem  kafka: nothing answers: 127.0.0.1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_doctor_names_what_is_wrong_and_goes_on(
    running: Pipeline, broken: dict[str, str | None], line: str
) -> None:
    """The parts that are well are still told, up to PostgreSQL, which comes last."""
    eventually(lambda: running.sql("SELECT 1 AS one FROM metallm.policy_now"))
    result = run(running, "doctor", **broken)
    assert line in result.stdout
    assert result.exit_code == (1 if line.startswith("problem") else 0)
    assert "Traceback" not in result.output
    if "DATABASE_URL" not in broken:
        assert "ok       schema: revision" in result.stdout
    if not any(name.startswith("KAFKA_") for name in broken):
        assert "ok       kafka: " in result.stdout


def test_doctor_sees_a_database_without_tables(running: Pipeline) -> None:
    """And names the command that makes them."""
    with fresh_database(running.database_url) as url:
        result = run(running, "doctor", DATABASE_URL=url)
    assert result.exit_code == 1
    assert "problem  schema: " in result.stdout
    (learner,) = (line for line in result.stdout.splitlines() if "learner: " in line)
    assert learner.endswith("→ metallm db upgrade")


def test_doctor_sees_services_that_do_not_run(pipeline: Pipeline) -> None:
    """Topics and tables alone: no models, no policy; then a model, and nobody to route to it."""
    bare = run(pipeline, "doctor")
    assert bare.exit_code == 0, bare.output
    assert "warning  models: none" in bare.stdout
    assert "warning  policy: none yet" in bare.stdout
    pipeline.add_models(["mini"])
    result = run(pipeline, "doctor")
    assert result.exit_code == 1
    for service in ("router", "learner", "worker-recorded"):
        assert f"problem  services: no {service} is in its group  → python services/" in (
            result.stdout
        )


def test_doctor_sees_a_model_whose_provider_has_no_topic(pipeline: Pipeline) -> None:
    """Calls for it could not be written."""
    model = Model(arm="lost", provider="elsewhere", model="lost")
    pipeline.produce(pipeline.names.models, model.encode(), b"lost")
    result = run(pipeline, "doctor")
    assert result.exit_code == 1
    assert f"topic {pipeline.names.calls('elsewhere')} of provider elsewhere is missing" in flat(
        result
    )
    assert "provider elsewhere is not in these settings" in flat(result)


def test_doctor_sees_topics_that_will_not_do(pipeline: Pipeline) -> None:
    """A catalogue that is not compacted loses models."""
    admin = pipeline.kafka.admin()
    topic = pipeline.names.models
    for done in admin.delete_topics([topic]).values():
        done.result(15)
    eventually(lambda: topic not in admin.list_topics(timeout=15).topics)

    def is_made() -> bool:
        made = admin.create_topics([NewTopic(topic, 1, 1, config={"cleanup.policy": "delete"})])
        return all(future.exception(15) is None for future in made.values())

    eventually(is_made)
    result = run(pipeline, "doctor")
    assert result.exit_code == 1
    assert f"problem  topics: topic '{topic}' has cleanup.policy=delete" in result.stdout
    assert "ok       schema: " in result.stdout


def test_doctor_sees_a_provider_s_topic_that_will_not_do(pipeline: Pipeline) -> None:
    """Its worker does not start."""
    admin, topic = pipeline.kafka.admin(), pipeline.names.calls("recorded")
    size = ConfigEntry("max.message.bytes", "1000", incremental_operation=AlterConfigOpType.SET)
    wanted = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[size])
    admin.incremental_alter_configs([wanted])[wanted].result(15)
    shown: list[str] = []

    def is_told() -> bool:
        shown.append(run(pipeline, "doctor").stdout)
        return f"problem  topics: topic '{topic}' has max.message.bytes=1000" in shown[-1]

    eventually(is_told)


def test_doctor_sees_that_learners_cannot_go_on(pipeline: Pipeline) -> None:
    """A topic made anew, though it holds the position, and a log that lost records."""
    feedback, decisions = pipeline.names.feedback, pipeline.names.decisions
    ids = topic_ids(pipeline.kafka, [feedback, decisions])
    records = [Record(topic, None, b"1", partition=0) for topic in (feedback, decisions)]
    write(pipeline.producer, records * 2)
    with pipeline.engine.begin() as conn:
        for topic, id_, last in ((feedback, "of another topic", 2), (decisions, ids[decisions], 7)):
            position = claim_partition(conn, topic, 0, 0, id_)
            advance(conn, [Advance(position, last)])
            claim_partition(conn, topic, 1, 0, "of another topic")  # nothing was read of it
    result = run(pipeline, "doctor")
    assert result.exit_code == 1
    told = [line for line in result.stdout.splitlines() if "learner: " in line]
    cut, anew = told
    assert f"problem  learner: {decisions}[0] holds offsets 0 to 2, but the next one" in cut
    assert f"learner: {feedback}[0]: the topic was deleted and made anew since learners" in anew
    set_to = "set next_offset to it, and topic_id to NULL, in table metallm.offsets where topic"
    assert f"to go on at 2 if it was cut, at 0 if it was made anew, {set_to}" in cut
    assert f"to go on at 0, {set_to} = '{feedback}' and partition = 0" in anew


def test_doctor_shows_the_policys_age_and_the_learners_lag(running: Pipeline) -> None:
    """The newest manifest's, and what stands behind the learner's position."""
    running.probe()  # something to learn from, whichever tests ran before
    eventually(lambda: running.sql("SELECT 1 AS one FROM metallm.policy_now"))
    newest = max(
        PolicyManifest.parse(message.value()).version
        for message in running.read(running.names.policy)
        if b'"manifest"' in (message.value() or b"")
    )
    with running.engine.begin() as conn:
        moved = conn.execute(
            text("SELECT sum(next_offset) FROM metallm.offsets WHERE topic = :topic"),
            {"topic": running.names.decisions},
        ).scalar_one()
    assert moved > 0
    result = run(running, "doctor")
    versions = re.findall(r"policy: version (\d+), \d+ s old", result.stdout)
    assert [int(version) >= newest for version in versions] == [True]
    assert re.search(r"ok       learner: [\d,]+ records? behind", result.stdout)


def test_an_unreachable_kafka_ends_a_command_in_one_line(running: Pipeline) -> None:
    """Nothing of the library's own log is printed beside it."""
    environment = {k: v for k, v in (os.environ | surroundings(running)).items() if v is not None}
    environment["KAFKA_BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
    ended = subprocess.run(
        [sys.executable, "-m", "metallm_stream.cli", "topics", "check"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: Kafka does not answer: ")
    assert ended.stderr.count("\n") == 1
