"""Files of logged outcomes: what is read, left out, filled in and refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metallm_stream.errors import InvalidEvent
from metallm_stream.evaluate import read_logged, read_outcomes


def line(query_id: str, text: str = "text", **outcomes: Any) -> dict[str, Any]:
    """One query; an outcome is a quality, or a pair of quality and cost."""
    pairs = {a: o if isinstance(o, tuple) else (o, None) for a, o in outcomes.items()}
    return {
        "query_id": query_id,
        "text": text,
        "task": "ignored",
        "outcomes": {a: {"quality": q, "cost": c, "answer": "x"} for a, (q, c) in pairs.items()},
    }


def written(path: Path, *lines: dict[str, Any]) -> Path:
    """The lines as a file, with a blank one at its end."""
    path.write_text("".join(json.dumps(item) + "\n" for item in lines) + "\n", encoding="utf-8")
    return path


def test_reads_plain_and_gzipped_lines_alike(tmp_path: Path) -> None:
    """Arms in alphabetical order, queries in the order of the file, whatever the file's name."""
    lines = [
        line("1", "first", b=(1.0, 0.2), a=(0.5, 0.1)),
        line("2", "second", a=(0, 0), b=(1, 0)),
    ]
    plain = read_outcomes(written(tmp_path / "plain", *lines))
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))
    for outcomes in (plain, read_outcomes(packed)):
        assert outcomes.arms == ("a", "b")
        assert outcomes.texts == ("first", "second")
        assert outcomes.quality.tolist() == [[0.5, 1.0], [0.0, 1.0]]
        assert outcomes.cost_usd.tolist() == [[0.1, 0.2], [0.0, 0.0]]
        assert outcomes.notes == ()
        assert len(outcomes) == 2


def test_texts_may_hold_other_line_breaks(tmp_path: Path) -> None:
    """Lines end at the newline byte only."""
    path = tmp_path / "f"
    item = line("1", "a\u2028b\x0bc", a=1.0)
    path.write_text(json.dumps(item, ensure_ascii=False), encoding="utf-8")
    assert read_outcomes(path).texts == ("a\u2028b\x0bc",)


def test_queries_without_every_arm_and_doubles_are_left_out_and_told(tmp_path: Path) -> None:
    """Only complete queries compare; the first of two lines with one id counts."""
    outcomes = read_outcomes(
        written(
            tmp_path / "f",
            line("1", a=1.0, b=0.0),
            line("2", a=1.0),
            line("3", a=1.0, b=None),
            line("1", a=0.0, b=0.0),
        )
    )
    assert outcomes.quality.tolist() == [[1.0, 0.0]]
    assert outcomes.notes == (
        "1 line with an earlier query_id left out",
        "2 queries without every arm's outcome left out",
    )


def test_a_missing_cost_is_the_arms_mean(tmp_path: Path) -> None:
    """A gap among an arm's costs is filled with the mean of the others, and told."""
    outcomes = read_outcomes(
        written(
            tmp_path / "f", line("1", a=(1, 0.2)), line("2", a=(1, 0.4)), line("3", a=(1, None))
        )
    )
    assert outcomes.cost_usd[:, 0] == pytest.approx([0.2, 0.4, 0.3])
    assert outcomes.notes == ("1 missing cost taken as the arm's mean",)


def test_arms_without_costs_are_left_out_where_cost_counts(tmp_path: Path) -> None:
    """With a cost weight they cannot be compared; without one they stay, their cost unknown."""
    outcomes = read_outcomes(
        written(tmp_path / "f", line("1", a=(1, 0.2), b=0.5), line("2", a=(1, 0.4), b=0.5))
    )
    compared = outcomes.priced(0.1)
    assert compared.arms == ("a",)
    assert compared.quality.tolist() == [[1.0], [1.0]]
    assert compared.notes == ("arms without a cost left out: b",)
    kept = outcomes.priced(0.0)
    assert kept.arms == ("a", "b")
    assert np.isnan(kept.cost_usd[:, 1]).all()


def test_where_no_arm_has_a_cost_it_is_zero(tmp_path: Path) -> None:
    """Files of qualities alone can be replayed under any weight."""
    outcomes = read_outcomes(written(tmp_path / "f", line("1", a=1.0, b=0.5))).priced(0.3)
    assert outcomes.cost_usd.tolist() == [[0.0, 0.0]]
    assert outcomes.notes == ("no arm has a cost: cost is taken as 0",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not json\n", r"f, line 1: line: Invalid JSON"),
        (b"[1]\n", r"f, line 1: line: Input should be an object"),
        (b"\xff\xfe\n", r"f, line 1: line: Invalid JSON"),
        (json.dumps(line("1", a=1.0)).encode() + b"\n{}\n", r"line 2: query_id: Field required"),
        (json.dumps(line("1", a=1.5)).encode(), r"outcomes.a.quality: .* less than or equal to 1"),
        (json.dumps(line("1", a=(1, -1))).encode(), r"outcomes.a.cost: .* greater than or equal"),
        (json.dumps(line("1", a=(1, float("nan")))).encode(), r"outcomes.a.cost: .* finite"),
        (json.dumps(line("1")).encode(), r"outcomes: .* at least 1 item"),
        (json.dumps(line("1", a=None)).encode(), r"no query has an outcome of every arm \(a\)"),
        (b"", r"there is no query in this file"),
        (gzip.compress(b"{}", mtime=0)[:-4], r"not a whole gzip file"),
        (b"\x1f\x8b\x08rubbish rubbish", r"not a whole gzip file"),
    ],
)
def test_other_files_are_refused_with_line_and_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    """The message names the file, the line, the field and what is wrong."""
    path = tmp_path / "f"
    path.write_bytes(content)
    with pytest.raises(InvalidEvent, match=reason):
        read_outcomes(path)


@pytest.mark.parametrize(
    ("outcome", "field"),
    [
        ({"qualty": 1.0, "cost": 0.1}, "qualty"),
        ({"Quality": 1.0}, "Quality"),
        ({"quality": 1.0, "costs": 0.1}, "costs"),
        ({"quality": 1.0, "latency_s": 2, "cost_usd": 0.1}, "cost_usd"),
        ({"score": 1.0}, "score"),
        ({"score": 0.9, "cost": 0.1}, "score"),
        ({"quality": 1.0, "price": 0.1}, "price"),
    ],
)
def test_misspelt_fields_of_an_outcome_are_refused(
    tmp_path: Path, outcome: dict[str, Any], field: str
) -> None:
    """By replay and warmup alike, with query, arm, field and the known ones."""
    path = written(tmp_path / "f", line("1", a=1.0), line("2") | {"outcomes": {"a": outcome}})
    for read in (read_outcomes, read_logged):
        with pytest.raises(InvalidEvent) as refused:
            read(path)
        assert str(refused.value) == (
            f"f, line 2: line: query '2', arm 'a': no field '{field}' is known of an outcome; "
            "known are quality and cost"
        )


@pytest.mark.parametrize(
    "outcome",
    [
        {},
        {"quality": None, "error": "timeout"},
        {"error": "timeout"},
        {"answer": "x", "latency_s": 2},
        {"quality": 1.0, "cost_currency": "USD"},
        {"quality": 1.0, "host": "west"},
        {"quality": 1.0, "cost": None, "cost_eur": 0.1, "quality_by": "me"},
    ],
)
def test_other_fields_of_an_outcome_are_ignored(tmp_path: Path, outcome: dict[str, Any]) -> None:
    """Beside the known ones they may even look alike."""
    path = written(tmp_path / "f", line("1") | {"outcomes": {"a": outcome}})
    assert read_logged(path)[0].outcomes["a"].quality == outcome.get("quality")
