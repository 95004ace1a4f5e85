"""The one way in which a judgement can fail.

Invariant: a judgement that says nothing about the prediction is never turned into a quality.
"""

from __future__ import annotations

from metallm_stream.errors import MetallmError


class Unjudgeable(MetallmError):
    """A label or score from which no quality follows: keep it with the reason and learn nothing.

    Parameters
    ----------
    reason
        Names the field, the value and the way out; safe to show to whoever gave the feedback.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
