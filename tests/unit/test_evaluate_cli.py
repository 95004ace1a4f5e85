"""`metallm replay`, as a user runs it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from metallm_stream.cli.replay import replay
from metallm_stream.errors import ConfigurationError
from metallm_stream.evaluate import WITHIN_BUDGET


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions about code, which `coder` answers well, and poems, which `poet` does."""
    path = tmp_path_factory.mktemp("replay") / "logged.jsonl"
    lines = []
    for i in range(240):
        code = i % 2 == 0
        text = f"def f{i}(x): return x + {i}" if code else f"a poem about the {i}th autumn leaf"
        outcomes = {
            "coder": {"quality": float(code), "cost": 0.002},
            "poet": {"quality": float(not code), "cost": 0.001},
            "[free]": {"quality": 0.5, "cost": None},
        }
        lines.append(json.dumps({"query_id": str(i), "text": text, "outcomes": outcomes}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def dear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """800 questions to which one arm is better at ten times the cost."""
    path = tmp_path_factory.mktemp("replay") / "dear.jsonl"
    rng = np.random.default_rng(2)
    lines = []
    for i in range(800):
        outcomes = {
            arm: {"quality": float(rng.random() < right), "cost": usd * rng.gamma(2) / 2}
            for arm, right, usd in (("big", 0.9, 0.01), ("mini", 0.6, 0.001))
        }
        lines.append(json.dumps({"query_id": str(i), "text": f"{i}?", "outcomes": outcomes}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


RIVER = "river:LinUCBDisjoint"
SMALL = ("--encoder", "wordllama:32")


def run(file: Path, *options: str) -> Result:
    """The command's result."""
    return CliRunner().invoke(replay, [str(file), *options])


def report(file: Path, *options: str) -> dict[str, Any]:
    """The one JSON object that `--json` prints."""
    result = run(file, *options, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_prints_one_object(file: Path) -> None:
    """Policy, weight, seed, arms, and for both parts the means, baselines and shares."""
    found = report(file, "--seed", "3")
    assert (found["policy"], found["cost_weight"], found["seed"]) == ("ridge-elimination", 0.1, 3)
    assert found["n"] == 240
    assert found["arms"] == ["coder", "poet"]
    assert found["notes"] == ["arms without a cost left out: [free]"]
    for part in (found["all"], found["second_half"]):
        assert {"utility", "quality", "cost", "baselines", "shares"} <= part.keys()
        assert {"best_fixed", "cheapest", "dearest", "uniform", "oracle", "fixed:poet"} <= part[
            "baselines"
        ].keys()
        assert math.isclose(sum(part["shares"].values()), 1)
        assert part["baselines"]["oracle"]["quality"] == 1.0
    assert (
        found["second_half"]["utility"] > found["second_half"]["baselines"]["best_fixed"]["utility"]
    )
    assert found["queries_per_s"] > 0


def test_same_seed_same_figures(file: Path) -> None:
    """All but the rate is reproducible."""
    first, second = (report(file, "--seed", "5") for _ in range(2))
    for found in (first, second):
        found.pop("queries_per_s")
    assert first == second


def test_options_reach_the_replay(file: Path) -> None:
    """Order, limit, shuffles, policy, labels and cost weight change what they say."""
    assert report(file, "--limit", "10", "--order", "file")["n"] == 10
    fixed = report(file, "--policy", "fixed:poet")
    assert fixed["all"]["utility"] == pytest.approx(
        fixed["all"]["baselines"]["fixed:poet"]["utility"]
    )
    assert fixed["all"]["shares"] == {"coder": 0.0, "poet": 1.0}
    assert "utility_standard_error" in report(file, "--shuffles", "3")["second_half"]
    blind = report(file, "--label-fraction", "0")
    assert 0.35 < blind["second_half"]["shares"]["coder"] < 0.65
    late = report(file, "--label-delay", "240")
    assert 0.35 < late["second_half"]["shares"]["coder"] < 0.65
    free = report(file, "--cost-weight", "0")
    assert free["arms"] == ["[free]", "coder", "poet"]
    assert free["all"]["baselines"]["fixed:[free]"]["cost"] is None
    assert report(file, "--encoder", "wordllama:32")["encoder"] == "wordllama:32"


def test_a_policy_of_rivers_is_replayed_as_the_service_runs_it(file: Path) -> None:
    """By any of its names, with its parameters and the floor, and without a memory of sums."""
    found = report(file, "--policy", RIVER, "--policy-parameters", '{"beta": 4.0}', *SMALL)
    assert (found["policy"], found["floor"], found["drift"]) == (RIVER, 0.05, None)
    assert found["policy_parameters"] == {"beta": 4.0}
    assert found["second_half"]["quality"] > 0.8
    again = report(
        file, "--policy", "river.bandit.LinUCBDisjoint", "--policy-parameters", '{"beta": 4.0}',
        "--drift", "off", *SMALL,
    )  # fmt: skip
    assert again["all"] == found["all"]
    chance = report(file, "--policy", RIVER, "--floor", "1", *SMALL)
    assert 0.4 < chance["all"]["shares"]["coder"] < 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "river:UCB"], "METALLM_ROUTER__POLICY=river:UCB: .*LinUCBDisjoint"),
        (["--policy", RIVER, "--policy-parameters", '{"burn_in": 3}'], "leave burn_in out"),
        (["--policy", RIVER, "--policy-parameters", '{"width": 3}'], "cannot be run"),
        (
            ["--policy", "uniform", "--policy-parameters", '{"width": 3}'],
            "policy 'uniform': ",
        ),
    ],
)
def test_what_the_service_would_refuse_is_refused(
    file: Path, options: list[str], message: str
) -> None:
    """With the words of the service, before any query is replayed."""
    with pytest.raises(ConfigurationError, match=message):
        raise run(file, *options).exception or AssertionError(options)


def test_parameters_reach_rules_of_ours(file: Path) -> None:
    """With a floor of 1 ε-greedy draws evenly."""
    options = ("--policy", "ridge-epsilon", "--cost-weight", "4")
    greedy = report(file, *options)
    even = report(file, *options, "--policy-parameters", '{"floor": 1}')
    assert greedy["second_half"]["shares"]["coder"] < 0.3
    assert 0.4 < even["second_half"]["shares"]["coder"] < 0.6


def test_a_budget_shows_what_it_would_do(dear: Path) -> None:
    """Spend keeps to it, in the mean and in the worst window, and quality is what that leaves."""
    free = report(dear, "--cost-weight", "0", *SMALL)
    held = report(dear, "--cost-weight", "0", "--budget-usd-per-query", "0.004", *SMALL)
    assert free["spending"] is free["budget_usd_per_query"] is None
    assert (free["cost_delay"], held["cost_delay"]) == (0, 25)
    assert free["all"]["cost"] > 0.006
    assert held["budget_usd_per_query"] == 0.004
    assert held["spending"]["share"] == pytest.approx(held["all"]["cost"] / 0.004)
    assert 0.7 < held["spending"]["share"] <= 1.0
    assert 0.7 < held["spending"]["worst_window"] < 1.05
    assert held["second_half"]["quality"] < free["second_half"]["quality"]
    table = run(dear, "--budget-usd-per-query", "0.004", "--limit", "300", *SMALL)
    words = " ".join(table.stdout.split())
    assert "budget of 0.004 USD a query, cost weight 0.1:" in words
    assert "worst 500 queries after the first 200: none, of fewer than 700 queries" in words


def test_the_fair_baseline_of_a_budget_is_within_it(dear: Path) -> None:
    """The best arm that keeps to it in the mean, in the object and in both tables."""
    options = ("--cost-weight", "0", "--limit", "100", *SMALL)
    assert WITHIN_BUDGET not in report(dear, *options)["all"]["baselines"]
    assert WITHIN_BUDGET not in run(dear, *options).stdout
    held = report(dear, "--budget-usd-per-query", "0.004", *options)
    assert held["notes"] == []
    for part in (held["all"], held["second_half"]):
        assert part["baselines"]["best_fixed"]["arm"] == "big"
        assert part["baselines"][WITHIN_BUDGET] == part["baselines"]["fixed:mini"]
    table = run(dear, "--budget-usd-per-query", "0.004", *options).stdout
    assert f"{WITHIN_BUDGET}: mini" in table
    weights = ("--cost-weights", "0,1", "--budget-usd-per-query", "0.004", *options[2:])
    assert run(dear, *weights).stdout.count(WITHIN_BUDGET) == 2


def test_a_budget_that_no_arm_keeps_to_is_told(dear: Path) -> None:
    """With both figures; and there is no fair baseline."""
    options = ("--budget-usd-per-query", "0.0005", "--limit", "100", *SMALL)
    found = report(dear, *options)
    assert WITHIN_BUDGET not in found["all"]["baselines"]
    (note,) = found["notes"]
    assert "0.0005 USD a query cannot be held: mini, the cheapest arm, costs 0.00" in note
    words = " ".join(run(dear, *options).stdout.split())
    assert f"note: {note}" in words
    assert f"{WITHIN_BUDGET}: none" in words


def test_a_budget_leaves_out_arms_whose_cost_nobody_knows(file: Path, tmp_path: Path) -> None:
    """And where nobody knows any it is refused, since it would hold for nothing."""
    held = report(file, "--cost-weight", "0", "--budget-usd-per-query", "1", *SMALL)
    assert held["arms"] == ["coder", "poet"]
    free = tmp_path / "free.jsonl"
    free.write_text('{"query_id": "q", "text": "t", "outcomes": {"a": {"quality": 1}}}')
    result = run(free, "--budget-usd-per-query", "1")
    assert result.exit_code == 2
    assert "no arm in free.jsonl costs anything" in " ".join(result.output.split())


def test_several_cost_weights_are_several_replays(file: Path) -> None:
    """The same as one by one, as an array, and as rows of one table."""
    found = json.loads(run(file, "--cost-weights", "0,.1", "--json").stdout)
    assert [each["cost_weight"] for each in found] == [0.0, 0.1]
    assert found[1]["all"] == report(file, "--cost-weight", "0.1")["all"]
    table = run(file, "--cost-weights", "0,.1")
    assert table.exit_code == 0, table.output
    for row in ("0 ridge-elimination", "0.1 ridge-elimination", "0 best_fixed", "0.1 best_fixed"):
        assert row in table.stdout


def test_prints_a_table_for_people(file: Path) -> None:
    """Baselines, the arms behind their names, notes and the measured rate."""
    result = run(file, "--shuffles", "2", "--cost-weight", "0")
    assert result.exit_code == 0, result.output
    for expected in (
        "ridge-elimination",
        "best_fixed",
        "oracle",
        "fixed:[fre",
        "unknown",
        "queries/s after",
    ):
        assert expected in result.stdout
    assert "standard error" in result.stdout
    assert "note: arms without a cost left out: [free]" in run(file).stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cost-weight", "nan"], "not a finite number"),
        (["--cost-weight", "-1"], "0<=x<=1000000"),
        (["--label-fraction", "2"], "0<=x<=1"),
        (["--shuffles", "0"], "x>=1"),
        (["--policy", "fixed:gone"], "no arm 'gone' in this file: coder, poet"),
        (["--policy", RIVER, "--drift", "adwin"], "--drift: adwin would change what sums"),
        (["--policy", RIVER, "--half-life", "9"], "--half-life: 9.0 would change what sums"),
        (["--floor", "0.1"], "--floor: it is for policies of River's"),
        (["--budget-usd-per-query", "0"], "x>=1e-12"),
        (["--policy-parameters", "[1]"], "is no JSON object: give names and values"),
        (["--policy-parameters", "alpha"], "is no JSON"),
        (["--cost-weights", "0,much"], "give numbers"),
        (["--cost-weight", "0.1", "--cost-weights", "0,1"], "either one weight or several"),
        (["--policy-parameters", '{"a": 1e400}'], "is no JSON"),
        (["--cost-weights", "0,-1"], "-1.0 is not in the range 0 to 1e+06"),
    ],
)
def test_bad_options_are_told(file: Path, options: list[str], message: str) -> None:
    """Usage errors name the option and the way out."""
    result = run(file, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """As are files that do not exist."""
    result = run(tmp_path / "gone.jsonl")
    assert result.exit_code == 2
    assert "does not exist" in result.output
