"""How two texts are compared without regard to case, typography and markup.

Invariant: every function here is idempotent and is applied to both sides of a comparison, so that
a text always equals itself and its own label.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache

_TYPOGRAPHY = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u2032\u02bc", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u2033\u00ab\u00bb", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
    # Invisible: soft hyphen, zero-width and direction marks, byte order mark, variation selectors.
    | dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufe0e\ufe0f\ufeff")
)
_EMPHASIS = re.compile(r"(\*{1,3}|_{2,3}|`{1,3})(?=\S)([^*`\n]{1,300}?)(?<=\S)\1")
# Signs that carry meaning inside a number (3.14, 10:30, 1/2, -1), a name (C#) or a unit (50 %).
_MEANT = r"(?<=\d)[.,:/](?=\d)|(?<![^\W_])-(?=\d)|(?<=[^\W_])#|[%&@]"


def plain(text: str) -> str:
    r"""The text in Unicode's NFKC form with straight quotes and dashes and nothing invisible.

    >>> plain("\u201cB\uff09\u201d")
    '"B)"'
    """
    return unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY)


def fold(text: str) -> str:
    r"""The plain text without regard to case (Unicode's full case folding).

    >>> fold("Stra\u00dfe") == fold("STRASSE")
    True
    """
    return unicodedata.normalize("NFKC", plain(text).casefold())


def without_emphasis(text: str) -> str:
    """The text without Markdown's paired asterisks, underscores and backquotes.

    >>> without_emphasis("**B** is `right`, A* is not")
    'B is right, A* is not'
    """
    return _EMPHASIS.sub(r"\2", text)


def bare(text: str) -> str:
    """The words and numbers alone, folded: what two free texts are compared by.

    A text of punctuation alone stands for itself.

    >>> bare("The *answer*: 3.14!"), bare(":)")
    ('the answer 3.14', ':)')
    """
    folded = fold(text)
    kept = _punctuation().sub(" ", folded)
    return " ".join((kept if kept.strip() else folded).split())


@cache
def _punctuation() -> re.Pattern[str]:
    """Runs of punctuation without a meaning; made at first use from all of Unicode."""
    every = map(chr, range(sys.maxunicode + 1))
    marks = "".join(char for char in every if unicodedata.category(char).startswith("P"))
    return re.compile(rf"(?:(?!{_MEANT})[{re.escape(marks)}`^~])+")
