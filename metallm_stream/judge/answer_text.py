"""The part of a model's answer that is read.

Invariant: what is read is of bounded length, whatever the model wrote, so that the time to judge
an answer is bounded as well.
"""

from __future__ import annotations

READ_AT_EACH_END = 10_000  # characters


def final(text: str) -> str:
    """The answer behind a reasoning block; of a very long one the two ends.

    >>> final("<think>It may be B.</think>A")
    'A'
    """
    return ends(text.rpartition("</think>")[2])


def ends(text: str) -> str:
    """The text, or of a very long one the two ends."""
    if len(text) <= 2 * READ_AT_EACH_END:
        return text
    return f"{text[:READ_AT_EACH_END]}\n{text[-READ_AT_EACH_END:]}"
