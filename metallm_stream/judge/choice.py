"""Queries with options, as in MMLU: the prediction is the letter of one, or none.

Invariant: letters stand for options in the order of the query. An answer may name the letter or
the option's own text; a text that is itself one of the letters ("C" as the text of option B) is
never read as a text. The rules are those of `classification`.
"""

from __future__ import annotations

from string import ascii_uppercase

from metallm_stream.events import Choice
from metallm_stream.judge import label_reader, spelling
from metallm_stream.judge.label_reader import LabelReader
from metallm_stream.judge.unjudgeable import Unjudgeable


def listed(form: Choice) -> str:
    """The options as the model is shown them, one a line.

    >>> print(listed(Choice(kind="choice", options=("Paris", "Rome"))))
    A. Paris
    B. Rome
    """
    lettered = zip(ascii_uppercase, form.options, strict=False)
    return "\n".join(f"{letter}. {' '.join(option.split())}" for letter, option in lettered)


def parse(form: Choice, text: str) -> str | None:
    """The letter that the answer gives, or None if it cannot be read.

    >>> form = Choice(kind="choice", options=("Paris", "Rome"))
    >>> parse(form, "Not Paris. The answer is (B)."), parse(form, "It is Paris!"), parse(form, "?")
    ('B', 'A', None)
    """
    answer = text.strip()
    if answer in form.options:
        return _among(form, answer)
    return label_reader.read(_reader(form), text, None)


def quality(prediction: str | None, label: str, form: Choice) -> float:
    """1.0 if the prediction is the option that the label names, by letter or text, else 0.0.

    Raises `Unjudgeable` if the label names no option.

    >>> quality("B", "rome", Choice(kind="choice", options=("Paris", "Rome")))
    1.0
    """
    meant = _among(form, label)
    if meant is None:
        last = ascii_uppercase[len(form.options) - 1]
        raise Unjudgeable(
            f"label: {label!r} is none of the query's options: send a letter from A to {last}, "
            "the text of an option, or a score"
        )
    return float(prediction == meant)


def _reader(form: Choice) -> LabelReader:
    letters = ascii_uppercase[: len(form.options)]
    texts = zip(form.options, letters, strict=True)
    apart = ((text, letter) for text, letter in texts if _is_read_in_prose(form, text))
    return label_reader.reader((*zip(letters, letters, strict=True), *apart))


def _among(form: Choice, label: str) -> str | None:
    letter = _letter(form, label)
    if letter is not None:
        return letter
    if label in form.options:
        return ascii_uppercase[form.options.index(label)]
    text = spelling.plain(label)
    return label_reader.exactly(_reader(form).find(text), text)


def _is_read_in_prose(form: Choice, text: str) -> bool:
    """Whether it has words: signs alone, as a full stop, mean something else in a sentence."""
    return _letter(form, text) is None and any(char.isalnum() for char in text)


def _letter(form: Choice, text: str) -> str | None:
    """The letter that the text is, but for case and signs around it: "(b)" is "B"."""
    bare = spelling.bare(text).upper()
    return bare if len(bare) == 1 and bare in ascii_uppercase[: len(form.options)] else None
