"""Which option an answer names, and which one a label does."""

from __future__ import annotations

import pytest

from metallm_stream.events import Choice, Query
from metallm_stream.judge import Unjudgeable, parse, prompt, quality

CITIES = Choice(kind="choice", options=("Paris", "Rome", "New York", "None of the above"))
VITAMINS = Choice(kind="choice", options=("A", "C", "K"))
SIGNS = Choice(kind="choice", options=(".", "?", "C"))
NUMBERS = Choice(kind="choice", options=("4", "-4", "16", "1/4"))


def read(form: Choice, answer: str) -> str | None:
    return parse(Query(query_id="q", text="?", answer=form), answer)


def judged(form: Choice, label: str, prediction: str | None = "B") -> float:
    return quality(
        prediction=prediction, label=label, score=None, labels=None, task=None, answer=form
    )


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("**B.**", "B"),
        ("B. Rome", "B"),
        ("Rome", "B"),
        ("rome!", "B"),
        ("The answer is (B).", "B"),
        ("Answer: B) Rome, since it is the seat of government", "B"),
        ("It is not Paris (A). Therefore, the answer is B.", "B"),
        ("<think>A? or C?</think>\n\nB", "B"),
        (r"\boxed{\text{B}}", "B"),
        ("A city in Italy: Rome.", "B"),
        ("I would say New York.", "C"),
        ("None of the above", "D"),
        ("A or B", None),
        ("E", None),
        ("I do not know.", None),
        ("", None),
    ],
)
def test_an_answer_names_an_option_by_letter_or_text(answer: str, letter: str | None) -> None:
    """The prediction is always the letter; two options, or another letter, are no answer."""
    assert read(CITIES, answer) == letter


def test_an_option_that_is_a_letter_itself_is_never_read_as_a_text() -> None:
    """Vitamin C is option B: an answer of "C" is the third option, which "K" names as well."""
    assert read(VITAMINS, "C") == "C"
    assert judged(VITAMINS, "C", "C") == 1.0
    assert judged(VITAMINS, "C", "B") == 0.0
    assert read(VITAMINS, "K") == "C"


@pytest.mark.parametrize(("answer", "letter"), [("16", "C"), ("-4", "B"), ("A", "A"), ("4", "A")])
def test_options_that_are_numbers_are_told_apart(answer: str, letter: str) -> None:
    """Signs count where options differ in them."""
    assert read(NUMBERS, answer) == letter


@pytest.mark.parametrize(("answer", "letter"), [("?", "B"), ("A.", "A"), ("Is it B?", "B")])
def test_options_that_are_signs_are_read_alone_only(answer: str, letter: str) -> None:
    """A full stop behind a letter is no option."""
    assert read(SIGNS, answer) == letter


@pytest.mark.parametrize("label", ["B", "b", "(B)", "B.", "Rome", "ROME", " rome. "])
def test_a_label_is_a_letter_or_the_text_of_an_option(label: str) -> None:
    """As people write them."""
    assert judged(CITIES, label) == 1.0
    assert judged(CITIES, label, "A") == 0.0
    assert judged(CITIES, label, None) == 0.0


@pytest.mark.parametrize("label", ["E", "Berlin", "1", "A, B", "?"])
def test_a_label_that_is_no_option_judges_nothing(label: str) -> None:
    """Its reason names the letters that there are."""
    with pytest.raises(Unjudgeable, match="a letter from A to D"):
        judged(CITIES, label)


def test_the_prompt_lists_the_options_with_their_letters() -> None:
    """One a line, behind the question, whatever line breaks an option has."""
    form = Choice(kind="choice", options=("one\nline", "two"))
    (turn,) = prompt(Query(query_id="q", text="How many?", answer=form))
    assert turn["content"].startswith("How many?\n\nA. one line\nB. two\n\n")
