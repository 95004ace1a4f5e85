"""Queries with labels: the prediction is one of them, or none that could be read.

Invariant: a prediction is always one of the query's labels in the query's own spelling. An answer
that cannot be read gives no prediction rather than a guess: quality 0 against a label.

The rules, in order; the first that finds a label decides:

1. The answer is a label, but for case, Unicode form, markup and surrounding punctuation.
2. The last explicit statement: "the answer is X" (or label, category, choice ..., or the task's
   name), `"label": "X"`, "classified as X", "I choose X", "therefore X", "X is correct", a boxed X.
3. Exactly one label is mentioned, as a word, the longest where one contains another.
4. The first line is a label, or else the last line.
5. The answer opens with a label that a punctuation mark sets off: "Yes, because no ...", "B) ...".

Otherwise there is no prediction. What a reasoning model writes before `</think>` is not read. A
label directly behind "not" or its like is no mention; negation is otherwise not understood. Where
the text itself lists the labels as lettered or numbered options ("A: Fear"), the letters stand for
them. Of an answer longer than 20,000 characters the two ends are read.
"""

from __future__ import annotations

import re

from metallm_stream.events import Query
from metallm_stream.judge import label_reader, spelling
from metallm_stream.judge.label_reader import LabelReader
from metallm_stream.judge.unjudgeable import Unjudgeable

_OPTION = re.compile(r"^[ \t]*[(\[]?([A-Za-z]|\d{1,2})[)\].:][ \t]+(\S.*)$", re.MULTILINE)


def listed(labels: tuple[str, ...]) -> str:
    """The labels as the model is shown them, one a line."""
    return "\n".join(f"- {' '.join(label.split())}" for label in labels)


def parse(query: Query, labels: tuple[str, ...], text: str) -> str | None:
    """The label that the answer gives, in the query's spelling, or None if it cannot be read.

    >>> ask = Query(query_id="q", text="Great film!", labels=("positive", "negative"))
    >>> parse(ask, ask.labels, "It is not negative. The answer is **Positive**.")
    'positive'
    """
    if text.strip() in labels:
        return text.strip()
    names = _own_names(labels)
    own = label_reader.reader(names)
    options = _options(query.text, own, labels)
    known = label_reader.reader(names + options) if options else own
    return label_reader.read(known, text, query.task)


def quality(
    prediction: str | None, label: str, *, labels: tuple[str, ...], task: str | None
) -> float:
    """1.0 if the prediction is the label, else 0.0; case, space and punctuation do not matter.

    Raises `Unjudgeable` if the label is none of the labels.

    >>> quality("True", "true", labels=("True", "False"), task=None)
    1.0
    """
    meant = _among(label, labels)
    if meant is None:
        where = f" of task {task!r}" if task else ""
        raise Unjudgeable(
            f"label: {label!r} is none of the query's labels{where} ({_shown(labels)});"
            " send one of them, or a score"
        )
    return float(prediction is not None and _among(prediction, labels) == meant)


def _options(text: str, own: LabelReader, labels: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Letters or numbers by which the text lists the labels: pairs of (letter, label).

    None if a letter is a label itself, is used twice, or if fewer than two labels are listed so.
    """
    listed = []
    for option in _OPTION.finditer(text):
        described = spelling.plain(option[2])
        label = label_reader.beginning(own, described)
        if label is not None:
            listed.append((option[1], label))
    letters = {spelling.fold(letter) for letter, _ in listed}
    taken = {spelling.fold(label) for label in labels} & letters
    distinct = len(letters) == len(listed) == len({label for _, label in listed})
    return tuple(listed) if distinct and len(listed) > 1 and not taken else ()


def _among(label: str, labels: tuple[str, ...]) -> str | None:
    """The one of the labels that is meant, read as an answer by rule 1 is."""
    if label in labels:
        return label
    text = spelling.plain(label)
    return label_reader.exactly(label_reader.reader(_own_names(labels)).find(text), text)


def _own_names(labels: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((label, label) for label in dict.fromkeys(labels))


def _shown(labels: tuple[str, ...], limit: int = 10) -> str:
    more = f", and {len(labels) - limit} more" if len(labels) > limit else ""
    return ", ".join(repr(label) for label in labels[:limit]) + more
