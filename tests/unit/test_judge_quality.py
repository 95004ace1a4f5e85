"""Labels and scores as qualities."""

from __future__ import annotations

import math

import pytest

from metallm_stream.errors import MetallmError
from metallm_stream.judge import Unjudgeable, quality


def judged(
    prediction: str | None,
    label: str | None = None,
    *,
    score: float | None = None,
    labels: tuple[str, ...] | None = None,
) -> float:
    return quality(prediction=prediction, label=label, score=score, labels=labels, task="mood")


@pytest.mark.parametrize("score", [0.0, 0.25, 1.0, 1])
def test_a_score_is_taken_as_it_is(score: float) -> None:
    """A score is the quality, with or without labels and prediction."""
    assert judged("x", score=score) == score
    assert judged(None, score=score, labels=("a", "b")) == score


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan, math.inf])
def test_a_score_outside_the_unit_interval_is_unjudgeable(score: float) -> None:
    """The error names the value and the range."""
    with pytest.raises(Unjudgeable, match=r"score: .* outside \[0, 1\]"):
        judged("x", score=score)


@pytest.mark.parametrize(
    ("prediction", "label", "expected"),
    [
        ("True", "True", 1.0),
        ("True", "true", 1.0),
        ("True", " TRUE. ", 1.0),
        ("False", "true", 0.0),
        (None, "true", 0.0),
        ("gone", "true", 0.0),
    ],
)
def test_a_label_is_compared_with_the_predicted_label(
    prediction: str | None, label: str, expected: float
) -> None:
    """Case and punctuation do not matter; no prediction, or an unknown one, is quality 0."""
    assert judged(prediction, label, labels=("True", "False")) == expected


def test_a_label_that_is_none_of_the_labels_is_unjudgeable() -> None:
    """The error names label, task, the first labels and the way out."""
    labels = tuple(f"label-{i}" for i in range(12))
    with pytest.raises(Unjudgeable) as caught:
        judged("label-1", "other", labels=labels)
    assert isinstance(caught.value, MetallmError)
    assert str(caught.value).startswith(
        "label: 'other' is none of the query's labels of task 'mood' ('label-0', 'label-1'"
    )
    assert str(caught.value).endswith("and 2 more); send one of them, or a score")


@pytest.mark.parametrize(
    ("prediction", "label", "expected"),
    [
        ("**Paris.**", "paris", 1.0),
        ("New   York\n", "new york", 1.0),
        ("It\u2019s 10:30", "it's 10:30.", 1.0),
        ("3.14", "314", 0.0),
        ("-1", "1", 0.0),
        ("50%", "50", 0.0),
        ("C#", "C", 0.0),
        ("# Heading", "heading", 1.0),
        (":)", ":(", 0.0),
        (":)", ":)", 1.0),
        ("Paris, France", "Paris", 0.0),
        (None, "Paris", 0.0),
    ],
)
def test_free_text_is_compared_by_words_and_numbers(
    prediction: str | None, label: str, expected: float
) -> None:
    """Case, space and punctuation do not matter; signs that carry meaning do."""
    assert judged(prediction, label) == expected


@pytest.mark.parametrize(("label", "score"), [(None, None), ("a", 1.0)])
def test_exactly_one_judgement_is_needed(label: str | None, score: float | None) -> None:
    """Neither, or both, says nothing."""
    with pytest.raises(Unjudgeable, match="exactly one"):
        judged("a", label, score=score)
