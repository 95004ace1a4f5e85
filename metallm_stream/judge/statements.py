"""How prose says which label it means: the English phrases that the parser understands.

Invariant: each question here looks at a bounded window around one mention, so that the time to
read an answer grows with its length alone.
"""

from __future__ import annotations

import re
from functools import lru_cache

_WINDOW = 160  # characters before a mention
_NOUNS = (
    "answer|label|category|class|classification|choice|option|prediction|verdict|decision"
    "|conclusion|response|result"
)
_FILLER = (
    r"(?:[\W_]|(?:the|an?|it|is|this|that|text|option|choice|answer|label|category|class|letter"
    r"|clearly|therefore|thus|most|likely|probably|definitely|simply|best|described|as|be|to"
    r")\b){0,12}\Z"
)
_SAID_AFTER = re.compile(
    r"\W{0,4}\s(?:is|would be|seems)\s+(?:the\s+)?(?:most\s+)?"
    r"(?:correct|right|best|appropriate|accurate|suitable|fitting|likely|answer)\b",
    re.IGNORECASE,
)
_EITHER = re.compile(r"\W{1,3}(?:or)\W+|\s*/\s*", re.IGNORECASE)
_NEGATED = re.compile(
    r"(?:(?:\b(?:not|never|neither|nor)|n't)\s+(?:(?:an?|the)\s+)?|\b(?:non|not)[-_ ])[\"'(]?\Z",
    re.IGNORECASE,
)
# Labels that are also everyday words: a mention counts only where the word stands apart.
_EVERYDAY = frozenset(
    ("a", "i", "no", "so", "or", "on", "in", "it", "is", "to", "not", "any", "all")
)
_APART = re.compile(
    r"\s*(?:[^\w\s]|\Z)|\s*\n"
    r"|\s+(?:and|or|is|was|seems|fits|matches|describes|applies|because)\b"
)


def is_stated(text: str, start: int, end: int, *, noun: str | None, same_case: bool) -> bool:
    """Whether the label at `text[start:end]` is said to be the answer.

    `noun` is one more word for "answer", such as the task's name: "the sentiment is ...".
    A lower-case "a" or "i" counts only where it stands apart.
    """
    doubtful = not same_case or text[start:end] in ("a", "i")
    if doubtful and not _stands_apart(text, start, end):
        return False
    before = text[max(0, start - _WINDOW) : start]
    return _said_before(noun).search(before) is not None or (
        _SAID_AFTER.match(text, end) is not None
    )


def is_meant(text: str, start: int, end: int) -> bool:
    """Whether the label's name at `text[start:end]` is no everyday word and not negated."""
    if _NEGATED.search(text[max(0, start - 24) : start]):
        return False
    return text[start:end].casefold() not in _EVERYDAY or _stands_apart(text, start, end)


def either(between: str) -> bool:
    """Whether the text between two labels offers them as alternatives: "B or C"."""
    return _EITHER.fullmatch(between) is not None


def _stands_apart(text: str, start: int, end: int) -> bool:
    everyday = text[start:end].casefold() in _EVERYDAY
    return not everyday or _APART.match(text, end) is not None


@lru_cache(maxsize=256)
def _said_before(noun: str | None) -> re.Pattern[str]:
    nouns = rf"\b(?:{_NOUNS}|{re.escape(noun)})\b" if noun else rf"\b(?:{_NOUNS})\b"
    return re.compile(
        rf"(?:{nouns}[^.!?:\n]{{0,60}}?\b(?:is|was|(?:would|should|must|will) be)\b"
        r"|\b(?:classif|categori|label|describe|identif|regard)\w*\b[^.!?\n]{0,60}?\bas\b"
        r"|\b(?:choose|chose|pick|picked|select|selected|go with|opt for|answer with)\b"
        r"|\b(?:therefore|thus|hence|overall|in conclusion|in summary|finally)\b"
        rf"){_FILLER}"
        rf"|{nouns}[^\w\n]{{0,4}}?(?:[:=>]|[-=]>|-|\n)[\W_]{{0,6}}\Z"
        r"|\\boxed\{\W{0,2}(?:text|mathrm)?\W{0,2}\Z",
        re.IGNORECASE,
    )
