"""Whatever a model answers, options, numbers and words are read and judged within bounds."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metallm_stream.events import AnswerForm, Choice, Extraction, Number, Query
from metallm_stream.judge import Unjudgeable, parse, quality
from metallm_stream.judge.quantity import Quantity

ADVERSARIAL = st.text(max_size=300) | st.text(
    alphabet="0123456789.,'/:%$-+*×=^#{}[]()\\ \n\u00a0½²eExABCanswer is boxedfrac€", max_size=300
)
OPTIONS = st.lists(st.text(min_size=1, max_size=20), min_size=2, max_size=26, unique=True).filter(
    lambda options: not any("\x00" in option for option in options)
)
CHOICES = OPTIONS.map(lambda options: Choice(kind="choice", options=tuple(options)))
NUMBER, WORDS = Number(kind="number"), Extraction(kind="extraction")
FORMS: st.SearchStrategy[AnswerForm] = CHOICES | st.sampled_from([NUMBER, WORDS])


def ask(form: AnswerForm) -> Query:
    return Query(query_id="q", text="?", answer=form)


def judged(form: AnswerForm, prediction: str | None, label: str) -> float:
    return quality(
        prediction=prediction, label=label, score=None, labels=None, task=None, answer=form
    )


@given(form=FORMS, answer=ADVERSARIAL, label=ADVERSARIAL.filter(bool))
def test_a_quality_is_between_0_and_1(form: AnswerForm, answer: str, label: str) -> None:
    """Or the label is said to judge nothing; no text makes the judge fail."""
    try:
        value = judged(form, parse(ask(form), answer), label)
    except Unjudgeable:
        return
    assert 0.0 <= value <= 1.0


@given(form=FORMS, answer=ADVERSARIAL)
def test_a_prediction_is_right_against_itself(form: AnswerForm, answer: str) -> None:
    """And reading it again changes nothing, except that words may lose what announced them."""
    prediction = parse(ask(form), answer)
    if prediction is None:
        return
    assert judged(form, prediction, prediction) == 1.0
    if form is not WORDS:
        assert parse(ask(form), prediction) == prediction


@given(form=CHOICES, data=st.data())
def test_every_letter_is_read_back(form: Choice, data: st.DataObject) -> None:
    """Whatever the options are."""
    letter = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(form.options)]))
    for dressed in (letter, f"({letter})", f"**{letter}**", f"The answer is {letter}."):
        assert parse(ask(form), dressed) == letter


@given(
    number=st.fractions(min_value=-(10**12), max_value=10**12, max_denominator=10**6),
    dressed=st.sampled_from(["{}", "#### {}", "It is {}.", "Of 3, the answer is {}", "**{}**"]),
)
def test_every_number_is_read_back(number: Fraction, dressed: str) -> None:
    """In its plainest form and in a sentence."""
    written = str(Quantity(number))
    assert parse(ask(NUMBER), dressed.format(written)) == written
    assert judged(NUMBER, written, written) == 1.0


@given(whole=st.integers(0, 10**15), cents=st.integers(0, 99))
def test_thousands_separators_change_nothing(whole: int, cents: int) -> None:
    """English, German, Swiss and in SI's way, with two decimals."""
    english = f"{whole:,}.{cents:02}"
    german = english.translate(str.maketrans(",.", ".,"))
    for written in (english, german, english.replace(",", "'"), english.replace(",", "\u202f")):
        assert judged(NUMBER, parse(ask(NUMBER), written), f"{whole}.{cents:02}") == 1.0


@given(said=st.text(max_size=60), meant=st.text(min_size=1, max_size=60))
def test_f1_does_not_depend_on_the_side(said: str, meant: str) -> None:
    """And the exact measure is 1 just where F1 is by the same words."""
    exact = Extraction(kind="extraction", measure="exact")
    if said:
        assert judged(WORDS, said, meant) == judged(WORDS, meant, said)
    if judged(exact, said, meant) == 1.0:
        assert judged(WORDS, said, meant) == 1.0


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "answer",
    [
        "9" * 400_000,
        "1," * 200_000,
        "1 1/" * 100_000,
        "\\boxed{" * 60_000,
        "answer " * 60_000,
        "answer is " * 40_000,
        "\\frac{1}{" * 40_000,
        "1\u00a0" * 200_000,
        "-$-$" * 100_000,
        "10^" * 130_000,
        "****" * 100_000,
        "####" * 100_000,
        "A (B) " * 70_000,
        "²½" * 200_000,
    ],
    ids=lambda answer: answer[:8].encode("unicode_escape").decode(),
)
def test_the_longest_answers_are_read(answer: str) -> None:
    """400,000 characters of what provokes backtracking are read like any other text."""
    choice = Choice(kind="choice", options=("one", "two"))
    for form, label in ((choice, "A"), (NUMBER, "1"), (WORDS, "1")):
        assert 0.0 <= judged(form, parse(ask(form), answer), label) <= 1.0
