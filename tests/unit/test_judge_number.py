"""Which number an answer gives, and when it is the label's."""

from __future__ import annotations

import pytest

from metallm_stream.events import Number, Query
from metallm_stream.judge import Unjudgeable, parse, quality

EXACT = Number(kind="number")
QUERY = Query(query_id="q", text="?", answer=EXACT)


def judged(prediction: str | None, label: str, form: Number = EXACT) -> float:
    return quality(
        prediction=prediction, label=label, score=None, labels=None, task=None, answer=form
    )


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("42", "42"),
        ("#### 42", "42"),
        ("6 + 1 = 7 eggs.\n#### 7\n(Check: 3 < 9)", "7"),
        ("#### 1. Add\n2 and 3 make 5", "5"),
        ("#### Step 1\nIt is 5 in all", "5"),
        (r"Thus \boxed{1{,}250} of 3", "1250"),
        (r"\boxed{\frac{3}{4}}", "0.75"),
        ("The answer is 3 + 4 = 7, as 9 > 8.", "7"),
        ("**Final answer:** $1,234.50 (in 12 months)", "1234.5"),
        ("Answer:\n12 apples, from 3 trees", "12"),
        ("It costs $1,260.50.", "1260.5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("\u22125 degrees", "-5"),
        ("from 7-5", "5"),
        ("1 234 567".replace(" ", "\u202f"), "1234567"),
        ("1'234.5", "1234.5"),
        ("1.234.567,89", "1234567.89"),
        ("12,34,567 rupees", "1234567"),
        ("3,5", "3.5"),
        ("0,125", "0.125"),
        ("1,234", "1234"),
        (".5", "0.5"),
        ("007", "7"),
        ("42.0", "42"),
        ("12.5 %", "12.5%"),
        ("50 percent", "50%"),
        ("3/4", "0.75"),
        ("1/3", "1/3"),
        ("-2/3", "-2/3"),
        ("1 1/2 cups", "1.5"),
        ("3½ cups", "3.5"),
        ("½", "0.5"),
        ("2.5e3", "2500"),
        ("1.5 × 10^-2", "0.015"),
        (r"3 \times 10^{4}", "30000"),
        ("1.5×10³", "1500"),
        ("2.5 million", "2500000"),
        ("<think>12</think>It is 13", "13"),
        ("5 m²", "5"),
        ("5km", "5"),
        ("2^10 = 1024", "1024"),
        ("\uff14\uff12", "42"),
        ("5/0", None),
        ("on 3/4/2020", None),
        ("at 10:30", None),
        ("version 1.2.3", None),
        ("COVID19", None),
        ("forty-two", None),
        ("NaN, inf", None),
        ("1e400", None),
        ("9" * 101, None),
        ("", None),
    ],
)
def test_the_number_of_an_answer_is_read(answer: str, number: str | None) -> None:
    """What announces a number comes first, then the last number counts, in its plainest form."""
    assert parse(QUERY, answer) == number


@pytest.mark.parametrize(
    ("prediction", "label", "expected"),
    [
        ("72", "72", 1.0),
        ("72", "Natalia sold 48/2 = 24 clips in May.\n#### 72", 1.0),
        ("72", "72.0", 1.0),
        ("1234", "1,234", 1.0),
        ("0.75", "3/4", 1.0),
        ("0.333", "1/3", 0.0),
        ("45%", "45", 1.0),
        ("45%", "0.45", 1.0),
        ("0.45", "45%", 1.0),
        ("45", "45 %", 1.0),
        ("4500%", "45%", 0.0),
        ("-5", "5", 0.0),
        (None, "5", 0.0),
        ("no idea", "5", 0.0),
    ],
)
def test_numbers_are_compared_exactly(prediction: str | None, label: str, expected: float) -> None:
    """Spelling does not matter, and a percentage may stand for a hundredth."""
    assert judged(prediction, label) == expected


@pytest.mark.parametrize(
    ("tolerances", "prediction", "expected"),
    [
        ({"tolerance": 0.3}, "10.3", 1.0),
        ({"tolerance": 0.3}, "10.31", 0.0),
        ({"relative_tolerance": 0.01}, "10.1", 1.0),
        ({"relative_tolerance": 0.01}, "9.89", 0.0),
        ({"tolerance": 1.0, "relative_tolerance": 0.01}, "11", 1.0),
    ],
)
def test_the_larger_tolerance_counts(
    tolerances: dict[str, float], prediction: str, expected: float
) -> None:
    """Its bound included, without the errors of floats."""
    assert (
        judged(prediction, "10", Number.model_validate({"kind": "number"} | tolerances)) == expected
    )


@pytest.mark.parametrize("label", ["seven", "?", "1.2.3"])
def test_a_label_without_a_number_judges_nothing(label: str) -> None:
    """It is a problem to mend, no zero."""
    with pytest.raises(Unjudgeable, match="has no number"):
        judged("7", label)
