"""Queries without labels: the prediction is the answer itself.

Invariant: two texts count as the same exactly when they have the same words and numbers in the
same order; nothing is known of synonyms, so a score serves open questions better than a label.
"""

from __future__ import annotations

from metallm_stream.judge import spelling


def parse(text: str) -> str:
    """The prediction: the answer without surrounding space, possibly empty."""
    return text.strip()


def quality(prediction: str | None, label: str) -> float:
    """1.0 if prediction and label have the same words but for case and punctuation, else 0.0.

    >>> quality("**Paris.**", "paris"), quality("3.14", "314"), quality(None, "paris")
    (1.0, 0.0, 0.0)
    """
    return float(prediction is not None and spelling.bare(prediction) == spelling.bare(label))
