"""Which kind of task a query is: with labels it is a classification, else free text.

Invariant: prompt, parse and quality of one query follow the same kind. Task names are free and
decide nothing here.
"""

from __future__ import annotations

import math

from metallm_stream.events import Query
from metallm_stream.judge import classification, free_text
from metallm_stream.judge.unjudgeable import Unjudgeable


def prompt(query: Query) -> tuple[dict[str, str], ...]:
    """The turns to send, each with `role` and `content`: system, earlier turns, the user's turn.

    >>> for turn in prompt(Query(query_id="q", text="2 + 2?", system="Be brief.")):
    ...     print(turn["role"], turn["content"])
    system Be brief.
    user 2 + 2?
    """
    asked = (
        free_text.user_turn(query)
        if query.labels is None
        else classification.user_turn(query, query.labels)
    )
    system = ({"role": "system", "content": query.system},) if query.system is not None else ()
    earlier = tuple({"role": turn.role, "content": turn.content} for turn in query.messages or ())
    return (*system, *earlier, {"role": "user", "content": asked})


def parse(query: Query, text: str) -> str | None:
    """The prediction in a model's answer: a label (None if unreadable), or the text itself."""
    if query.labels is None:
        return free_text.parse(text)
    return classification.parse(query, query.labels, text)


def quality(
    *,
    prediction: str | None,
    label: str | None,
    score: float | None,
    labels: tuple[str, ...] | None,
    task: str | None,
) -> float:
    """A label or a score as a number in [0, 1]; give exactly one of the two.

    A score is taken as it is. A label is compared with the prediction; no prediction is quality 0.
    Raises `Unjudgeable` if the label is none of `labels`, or the score is outside [0, 1].
    """
    if (label is None) == (score is None):
        raise Unjudgeable("label, score: exactly one of the two is needed to judge a prediction")
    if label is not None:
        if labels is None:
            return free_text.quality(prediction, label)
        return classification.quality(prediction, label, labels=labels, task=task)
    assert score is not None
    if not (math.isfinite(score) and 0.0 <= score <= 1.0):
        raise Unjudgeable(f"score: {score!r} is outside [0, 1]; send a number in that range")
    return score
