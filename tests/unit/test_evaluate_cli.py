"""`metallm replay`, as a user runs it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from metallm_stream.cli.replay import replay


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
        (["--cost-weight", "-1"], "x>=0"),
        (["--label-fraction", "2"], "0<=x<=1"),
        (["--shuffles", "0"], "x>=1"),
        (["--policy", "fixed:gone"], "no arm 'gone' in this file: coder, poet"),
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
