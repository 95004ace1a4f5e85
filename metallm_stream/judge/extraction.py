"""Queries whose answer is a span of words, as in SQuAD: exact match or F1 of the words.

Invariant: a text has quality 1 against itself; quality depends on words alone, not on case,
punctuation, markup or English articles.

References
----------
Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", EMNLP 2016,
section 6.1.
"""

from __future__ import annotations

import re
from collections import Counter

from metallm_stream.events import Extraction
from metallm_stream.judge import answer_text, spelling
from metallm_stream.judge.label_reader import UNSPACED

_ARTICLES = frozenset(("a", "an", "the"))
_TOKEN = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
_ANNOUNCED = re.compile(
    r"\A\W{0,8}(?:the )?(?:final )?answer(?: is)?\b\W{0,8}?[:\n]", re.IGNORECASE
)


def parse(text: str) -> str | None:
    """The answer without what announces it, markup and quotes; None if it is empty or very long.

    >>> parse('**Answer:** "the Seine"')
    'the Seine'
    """
    answer = text.rpartition("</think>")[2]
    if len(answer) > answer_text.READ_AT_EACH_END:
        return None
    announced = _ANNOUNCED.match(answer)
    span = spelling.without_emphasis(answer[announced.end() :] if announced else answer)
    return span.strip(" \t\r\n\"'*_`\u201c\u201d") or None


def quality(prediction: str | None, label: str, form: Extraction) -> float:
    """F1 of the words that prediction and label share, or 1.0 for the same words and else 0.0.

    >>> quality("in the river Seine", "the Seine", Extraction(kind="extraction"))
    0.5
    >>> quality("Seine.", "the Seine", Extraction(kind="extraction", measure="exact"))
    1.0
    """
    if prediction is None:
        return 0.0
    said, meant = _words(prediction), _words(label)
    if form.measure == "exact" or said == meant:
        return float(said == meant)
    shared = (Counter(said) & Counter(meant)).total()
    return 2.0 * shared / (len(said) + len(meant))


def _words(text: str) -> tuple[str, ...]:
    """Folded words without articles, unless there is nothing else."""
    words = tuple(_TOKEN.findall(spelling.bare(text)))
    return tuple(word for word in words if word not in _ARTICLES) or words
