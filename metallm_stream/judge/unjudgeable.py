"""The one way in which a judgement can fail.

Invariant: a judgement that says nothing about the prediction is never turned into a quality.
"""

from __future__ import annotations

from metallm_stream.errors import MetallmError


class Unjudgeable(MetallmError):
    """A label or score from which no quality follows: keep it with the reason and learn nothing.

    The message names the field, the value and the way out, and may be shown to whoever gave it.
    """
