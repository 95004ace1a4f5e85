r"""Queries whose answer is a number, as in GSM8K: the prediction is that number, or none.

Invariant: a prediction is a number in its plainest form, which is read back as itself.

The rules, in order; the first that finds a number decides:

1. The number behind the last `####`, headings apart.
2. The number in the last `\boxed{...}`.
3. The number behind the last "answer is" or "answer:"; of an equation there, its right side.
4. The last number of the answer.

A percentage equals the number before its sign, or a hundredth of that: 45 % is 45 and 0.45.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from metallm_stream.events import Number
from metallm_stream.judge import answer_text, quantity
from metallm_stream.judge.quantity import Found, Quantity
from metallm_stream.judge.unjudgeable import Unjudgeable

_ANNOUNCED = (
    re.compile(r"####(?!\s?\d{1,2}[.)]\s)(?=[^\w\n]{0,8}\d)"),  # but no heading
    re.compile(r"\\boxed\s?\{"),
    re.compile(r"\banswer\b[^.!?:=\n]{0,60}?(?:\b(?:is|was|be)\b|[:=])", re.IGNORECASE),
)
_WITHIN = 80  # characters between what announces a number and the number
_OPERATION = re.compile(r"[^\S\n]{0,3}[-+*/×÷=·][-+*/×÷=·()$\s]{0,6}")


def parse(text: str) -> str | None:
    r"""The number that the answer gives, in its plainest form, or None.

    >>> parse("6 * 7 = 42 apples, so $1,260.50."), parse("It is 3.\n#### 1,000"), parse("none")
    ('1260.5', '1000', None)
    """
    found = _read(text)
    return None if found is None else str(found)


def quality(prediction: str | None, label: str, form: Number) -> float:
    """1.0 if the prediction is the label's number within the tolerance of the query, else 0.0.

    Raises `Unjudgeable` if the label has no number.

    >>> form = Number(kind="number")
    >>> quality("72", "#### 72", form), quality("45%", "0.45", form)
    (1.0, 1.0)
    """
    meant = _read(label)
    if meant is None:
        raise Unjudgeable(f"label: {label!r} has no number; send one in digits, or a score")
    said = None if prediction is None else _read(prediction)
    return float(said is not None and any(_close(pair, form) for pair in _readings(said, meant)))


def _read(text: str) -> Quantity | None:
    text = quantity.prepared(answer_text.final(text))
    found = list(quantity.find(text))
    for announced in _ANNOUNCED:
        ends = [match.end() for match in announced.finditer(text)]
        behind = None if not ends else _behind(found, ends[-1], text)
        if behind is not None:
            return behind
    return found[-1].quantity if found else None


def _behind(found: Sequence[Found], place: int, text: str) -> Quantity | None:
    """The first number behind a place, or the right side of the equation that it begins."""
    following = [one for one in found if one.start >= place]
    if not following or following[0].start - place > _WITHIN:
        return None
    last = following[0]
    for one in following[1:]:
        if not _OPERATION.fullmatch(text, last.end, one.start):
            break
        last = one
    return last.quantity


def _readings(said: Quantity, meant: Quantity) -> tuple[tuple[Fraction, Fraction], ...]:
    """What is compared with what: pairs of (prediction, label)."""
    as_written = (said.value, meant.value)
    if said.is_percent == meant.is_percent:
        return (as_written,)
    hundredth = (
        (said.value / 100, meant.value) if said.is_percent else (said.value, meant.value / 100)
    )
    return (as_written, hundredth)


def _close(pair: tuple[Fraction, Fraction], form: Number) -> bool:
    said, meant = pair
    allowed = max(_exact(form.tolerance), _exact(form.relative_tolerance) * abs(meant))
    return abs(said - meant) <= allowed


def _exact(value: float) -> Fraction:
    """The fraction that was written: 0.3 is 3/10, not the float beside it."""
    return Fraction(repr(value))
