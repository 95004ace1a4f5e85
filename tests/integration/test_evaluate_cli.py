"""`metallm evaluate`, as a person runs it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from metallm_stream.cli.main import cli
from tests.integration.conftest import Sample
from tests.records import joined
from tests.stored_log import library, save, save_week


@pytest.fixture
def week(engine: Engine, sample: Sample) -> Engine:
    """Seven hundred queries of all kinds."""
    save_week(engine, sample)
    return engine


def evaluate(engine: Engine, *words: str) -> Result:
    """The command's result."""
    url = engine.url.render_as_string(hide_password=False)
    run = CliRunner(env={"DATABASE_URL": url, "METALLM_CONFIG": None, "COLUMNS": "100"})
    return run.invoke(cli, ["evaluate", *words], prog_name="metallm")


def test_the_command_prints_what_the_library_says(week: Engine) -> None:
    """As JSON, for all policies and for one."""
    result = evaluate(week, "--metric", "quality", "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    found = library(week, "quality")
    assert (shown["metric"], shown["cost_scale_usd"]) == ("quality", 0.01)
    assert [one["target"] for one in shown["policies"]] == [value.target for value in found]
    for one, value in zip(shown["policies"], found, strict=True):
        assert one["decisions"] == value.decisions
        assert [item["estimator"] for item in one["estimates"]] == [
            "ips", "snips", "dr", "dr_weighted", "dr_anytime",
        ]  # fmt: skip
        for item, estimate in zip(one["estimates"], value.estimates, strict=True):
            assert item["value"] == pytest.approx(estimate.value, rel=1e-9)
    only = json.loads(evaluate(week, "--policy", "always:large", "--json").stdout)
    assert [one["target"] for one in only["policies"]] == ["always:large"]


def test_the_table_names_policies_and_says_what_not_to_trust(week: Engine) -> None:
    """Every policy and estimator, and a note below."""
    result = evaluate(week, "--until", "2026-03-01T12:01:40")
    assert result.exit_code == 0, result.output
    for word in ("greedy", "always:[odd] 'arm'", "dr_weighted", "effective", "utility a query"):
        assert word in result.output
    assert "note: uniform: only " in result.output
    assert "utility counts 0.01 USD, and 10 s, as 1" in result.output
    assert "counts 0.5 USD" in evaluate(week, "--cost-scale-usd", "0.5").output


def test_a_note_of_several_policies_is_printed_once(week: Engine) -> None:
    """With all that it is about: of a few decisions there is much to distrust."""
    result = evaluate(week, "--until", "2026-03-01T12:00:02")
    assert result.exit_code == 0, result.output
    notes = [line.partition(": ")[2] for line in result.output.splitlines() if "note: " in line]
    said = [note.partition(": ")[2] for note in notes]
    assert 0 < len(said) == len(set(said)), result.output
    assert all("1 effective decisions" not in note for note in said)


def test_time_is_told_by_date_or_by_how_long_ago(week: Engine) -> None:
    """And what is wrong is said with what would be right."""
    known = json.loads(
        evaluate(week, "--since", "2026-03-01", "--policy", "logged", "--json").stdout
    )
    assert known["policies"][0]["decisions"] > 300
    for words, said in (
        (["--since", "5m"], "no stored decision has its result within --since: widen that, or"),
        (["--task", "none", "--until", "1m"], "within --until, --task: widen that"),
        (["--since", "1d", "--until", "2d"], "is not before --until ("),
        (["--cost-scale-usd", "0"], "1e-12<=x<=1000000000000.0"),
        (["--since", "yesterday"], "'yesterday' is no moment; write a date such as 2026-03-01"),
        (
            ["--policy", "always:"],
            "'always:' is none of all, logged, greedy, uniform and always:ARM",
        ),
        (["--task", "a\0b"], "Invalid value for '--task': 'a\\x00b' has a NUL or is not UTF-8"),
        (["--task", "a\udcff"], "Invalid value for '--task': 'a\\udcff' has a NUL or is not UTF-8"),
        (["--policy", "always:huge"], "that arm was never allowed; these were: [odd] 'arm', large"),
    ):
        result = evaluate(week, *words)
        assert result.exit_code != 0
        assert said in " ".join(result.output.split()), result.output


def test_a_decision_that_cannot_be_is_named(engine: Engine, sample: Sample) -> None:
    """A propensity that is not the chosen candidate's probability."""
    save(engine, [joined(sample.decision(0, propensity=0.5), sample.result(0))])
    result = evaluate(engine, "--metric", "cost")
    assert result.exit_code == 1
    assert (
        "error: query_id 'q0': propensity 0.5, but arm 'mini' has probability 0.75" in result.output
    )
