"""Which kind of task a query is: its `answer` says so; with labels it is a classification.

Invariant: prompt, parse and quality of one query follow the same kind. Without `answer` and
labels a query is free text. Task names are free and decide nothing here.
"""

from __future__ import annotations

import math

from metallm_stream.events import AnswerForm, Choice, Extraction, Number, Query
from metallm_stream.judge import choice, classification, extraction, free_text, number
from metallm_stream.judge.templates import Template, Templates, shipped
from metallm_stream.judge.unjudgeable import Unjudgeable


def template(query: Query, templates: Templates | None = None) -> Template:
    """The template of the query's kind; None stands for those of this package."""
    if query.answer is not None:
        kind: str = query.answer.kind
    else:
        kind = "free_text" if query.labels is None else "classification"
    return (templates or shipped()).by_kind[kind]


def prompt(query: Query, templates: Templates | None = None) -> tuple[dict[str, str], ...]:
    """The turns to send, each with `role` and `content`: system, earlier turns, the user's turn.

    >>> for turn in prompt(Query(query_id="q", text="2 + 2?", system="Be brief.")):
    ...     print(turn["role"], turn["content"])
    system Be brief.
    user 2 + 2?
    """
    used = template(query, templates)
    asked = used.filled(
        {
            "text": query.text,
            "labels": classification.listed(query.labels or ()),
            "options": choice.listed(query.answer) if isinstance(query.answer, Choice) else "",
        }
    )
    system = used.system if query.system is None else query.system
    first = ({"role": "system", "content": system},) if system is not None else ()
    earlier = tuple({"role": turn.role, "content": turn.content} for turn in query.messages or ())
    return (*first, *earlier, {"role": "user", "content": asked})


def parse(query: Query, text: str) -> str | None:
    """The prediction in a model's answer, None if unreadable: a label, a letter, a number, words.

    Of free text it is the text itself.
    """
    match query.answer:
        case Choice():
            return choice.parse(query.answer, text)
        case Number():
            return number.parse(text)
        case Extraction():
            return extraction.parse(text)
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
    answer: AnswerForm | None = None,
) -> float:
    """A label or a score as a number in [0, 1]; give exactly one of the two.

    A score is taken as it is. A label is compared with the prediction; no prediction is quality 0.
    Raises `Unjudgeable` if the label cannot be the answer to the query, or the score is outside
    [0, 1].
    """
    if (label is None) == (score is None):
        raise Unjudgeable("label, score: exactly one of the two is needed to judge a prediction")
    if label is not None:
        if labels is not None:
            return classification.quality(prediction, label, labels=labels, task=task)
        return _agreement(prediction, label, answer)
    assert score is not None
    if not (math.isfinite(score) and 0.0 <= score <= 1.0):
        raise Unjudgeable(f"score: {score!r} is outside [0, 1]; send a number in that range")
    return score


def _agreement(prediction: str | None, label: str, answer: AnswerForm | None) -> float:
    match answer:
        case Choice():
            return choice.quality(prediction, label, answer)
        case Number():
            return number.quality(prediction, label, answer)
        case Extraction():
            return extraction.quality(prediction, label, answer)
        case None:
            return free_text.quality(prediction, label)
