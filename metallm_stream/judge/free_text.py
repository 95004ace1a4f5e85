"""Queries without labels: the prediction is the answer itself.

Invariant: two texts count as the same exactly when they have the same words and numbers in the
same order; nothing is known of synonyms, so a score serves open questions better than a label.
"""

from __future__ import annotations

import re
from itertools import islice

from metallm_stream.judge import spelling

# Unicode composes at most four characters to one, and a text is normalised twice. The letter
# U+02BC counts as an apostrophe.
_COMPOSED = 16
_WORD_CHARACTER = re.compile(r"[^\W_\u02bc]")


def parse(text: str) -> str:
    """The prediction: the answer without surrounding space, possibly empty."""
    return text.strip()


def quality(prediction: str | None, label: str) -> float:
    """1.0 if prediction and label have the same words but for case and punctuation, else 0.0.

    >>> quality("**Paris.**", "paris"), quality("3.14", "314"), quality(None, "paris")
    (1.0, 0.0, 0.0)
    """
    meant = spelling.bare(label)
    if prediction is None or _is_longer(prediction, len(meant)):
        return 0.0
    return float(spelling.bare(prediction) == meant)


def _is_longer(text: str, length: int) -> bool:
    """Whether its words make a longer bare form for sure; they are not all read."""
    most = _COMPOSED * length
    return sum(1 for _ in islice(_WORD_CHARACTER.finditer(text), most + 1)) > most
