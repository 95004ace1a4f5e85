"""How words that were extracted are compared with a label."""

from __future__ import annotations

from typing import Literal

import pytest

from metallm_stream.events import Extraction, Query
from metallm_stream.judge import parse, quality


def judged(prediction: str | None, label: str, measure: Literal["f1", "exact"] = "f1") -> float:
    form = Extraction(kind="extraction", measure=measure)
    return quality(
        prediction=prediction, label=label, score=None, labels=None, task=None, answer=form
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("the Seine", "the Seine"),
        ('"the Seine"', "the Seine"),
        ("**Answer:** `Seine`", "Seine"),
        ("The answer is: Seine.", "Seine."),
        ("Answer:\nSeine", "Seine"),
        ("<think>Rhine?</think> Seine\n", "Seine"),
        ("Answering machines", "Answering machines"),
        ("  ", None),
        ("x" * 10_001, None),
    ],
)
def test_the_words_of_an_answer_are_read(answer: str, words: str | None) -> None:
    """Without what announces them, quotes and markup; an essay is no extraction."""
    query = Query(query_id="q", text="?", answer=Extraction(kind="extraction"))
    assert parse(query, answer) == words


@pytest.mark.parametrize(
    ("prediction", "label", "f1", "exact"),
    [
        ("Seine", "the Seine.", 1.0, 1.0),
        ("THE SEINE", "Seine", 1.0, 1.0),
        ("the river Seine", "Seine", 2 / 3, 0.0),
        ("Rhine", "Seine", 0.0, 0.0),
        ("b b a1", "b a1 a1", 2 / 3, 0.0),
        ("The", "a", 0.0, 0.0),
        ("The", "the", 1.0, 1.0),
        ("3.5 million", "3.5 million", 1.0, 1.0),
        ("東京都", "東京", 0.8, 0.0),
        (None, "Seine", 0.0, 0.0),
        ("!", "?", 0.0, 0.0),
    ],
)
def test_words_are_compared_as_in_squad(
    prediction: str | None, label: str, f1: float, exact: float
) -> None:
    """Case, punctuation and articles aside; scripts without spaces by the character."""
    assert judged(prediction, label) == pytest.approx(f1)
    assert judged(prediction, label, "exact") == exact
