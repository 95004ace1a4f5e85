r"""Numbers as models and people write them, read from prose as exact fractions.

Invariant: a quantity that is shown is read back as itself, and what is only part of something else
(a word, a date, a time of day, a version) is no quantity.

Read are thousands separators (`1,234`, `1 234` with a hard space, `1'234`, `1{,}234`), decimal
points and commas, signs, currency signs, percent, fractions (`3/4`, `1 1/2`, `½`, `\frac{3}{4}`),
powers of ten (`2e3`, `2 × 10^3`) and thousand to trillion. A single comma before three digits is
a thousands separator unless a 0 stands before it. Number words ("seven") are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from metallm_stream.judge import spelling

_MAX_CHARACTERS = 100
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_VULGAR = "\u00bc-\u00be\u2150-\u215f\u2189"
_HARD_SPACE = "\u00a0\u2007\u2009\u202f"
_REWRITTEN = (
    (re.compile(rf"(?<=\d)(?=[{_VULGAR}]|\\[dt]?frac\b)"), " "),
    (re.compile(r"\\[dt]?frac\{(-?\d{1,40})\}\{(\d{1,40})\}"), r"\1/\2"),
    (re.compile(rf"(?<=\d)(?:[{_HARD_SPACE}]|\{{,\}}|\\[,!;:])(?=\d{{3}}(?!\d))"), ","),
    (re.compile(r"[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]{1,40}"), r"^\g<0>"),
    (re.compile(r"\\([$%])"), r"\1"),
)
# Atomic groups: a number is read whole or not at all, in one pass over the text.
_NUMBER = re.compile(
    r"(?>(?:(?<![\w)\]}])(?P<sign>[-+]))?)(?>[$€£¥₹]\s?(?P<late>-)?)?"
    r"(?<![^\W_])(?<!\d[.,'/:])(?<!\^)(?<!\^\{)"
    r"(?P<amount>(?>\d+(?:[.,']\d+)*|\.\d+))"
    r"(?>(?P<over>\s\d{1,40}\s?/\s?\d{1,40}|\s?/\s?\d{1,40})?)"
    r"(?>(?:[eE](?P<e>[-+]?\d{1,2})(?!\w)"
    r"|\s?(?:[x×*]|\\times|\\cdot)\s?10\s?\^\s?\{?(?P<ten>[-+]?\d{1,2})(?!\d)\}?)?)"
    rf"(?>(?:\s?(?P<scale>{'|'.join(_SCALES)})\b)?)"
    r"(?>(?P<percent>\s?(?:%|percent\b|per cent\b))?)"
    r"(?!\s?[/:^]\s?\d|[.,']\d|e[-+]?\d)",
    re.IGNORECASE,
)
_GROUPED = re.compile(r"\d{1,3}(?:[.,']\d{2,3}){0,30}[.,']\d{3}")


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact number, and whether a percent sign stood behind it.

    >>> str(Quantity(Fraction(5, 4), is_percent=True)), str(Quantity(Fraction(1, 3)))
    ('1.25%', '1/3')
    """

    value: Fraction
    is_percent: bool = False

    def __str__(self) -> str:
        return _decimal(self.value) + ("%" if self.is_percent else "")


@dataclass(frozen=True, slots=True)
class Found:
    """A quantity and where it stands: `text[start:end]`."""

    quantity: Quantity
    start: int
    end: int


def prepared(text: str) -> str:
    """The text in the form in which `find` reads numbers."""
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    return spelling.plain(text).replace("\u2044", "/")


def find(text: str) -> Iterator[Found]:
    """All quantities of a prepared text, in order.

    >>> [str(found.quantity) for found in find("From $1,200.50 on 3/4/2020 at 10:30 to 12.5 %.")]
    ['1200.5', '12.5%']
    """
    for match in _NUMBER.finditer(text):
        value = _value(match)
        if value is not None and len(_decimal(value)) <= _MAX_CHARACTERS:
            quantity = Quantity(value, is_percent=match["percent"] is not None)
            yield Found(quantity, match.start(), match.end())


def _value(match: re.Match[str]) -> Fraction | None:
    value = _amount(match["amount"])
    if value is None or not (over := _over(value, match["over"])):
        return None
    power = int(match["e"] or match["ten"] or 0) + _SCALES.get((match["scale"] or "").lower(), 0)
    negative = match["sign"] == "-" or match["late"] is not None
    return (-1 if negative else 1) * over[0] * Fraction(10) ** power


def _amount(written: str) -> Fraction | None:
    """The number of digits and separators, or None if they are no number (a version, a list)."""
    if len(written) > _MAX_CHARACTERS:
        return None
    last = max(written.rfind("."), written.rfind(","))
    whole, point, decimals = written, "", ""
    signs = {sign: written.count(sign) for sign in ".,'" if sign in written}
    if last >= 0 and signs[written[last]] == 1 and not _is_thousands(written, last, signs):
        whole, point, decimals = written[:last], ".", written[last + 1 :]
    if "'" in decimals or (not whole.isdecimal() and whole and not _is_grouped(whole)):
        return None
    digits = "".join(char for char in whole if char.isdecimal())
    return Fraction(f"{digits or 0}{point}{decimals}")


def _is_thousands(written: str, last: int, signs: dict[str, int]) -> bool:
    """Whether the last separator, the only one of its sign, stands before thousands."""
    alone = written[last] == "," and len(signs) == 1
    return alone and written[0] != "0" and _GROUPED.fullmatch(written) is not None


def _is_grouped(whole: str) -> bool:
    return len({char for char in whole if not char.isdecimal()}) == 1 and (
        _GROUPED.fullmatch(whole) is not None
    )


def _over(value: Fraction, over: str | None) -> tuple[Fraction] | None:
    """The value with the fraction behind it, in a tuple of one since 0 is a value too."""
    if over is None:
        return (value,)
    parts = [int(part) for part in over.split("/") if part.strip()]
    if parts[-1] == 0 or value.denominator != 1:
        return None
    if len(parts) == 1:
        return (value / parts[0],)
    return (value + Fraction(parts[0], parts[1]),)


def _decimal(value: Fraction) -> str:
    """Digits with a decimal point where that is exact, else numerator and denominator."""
    rest, places = value.denominator, 0
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest, count = rest // prime, count + 1
        places = max(places, count)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)
