"""Finds the labels of one query in prose, word by word.

Invariant: of names that begin at the same word the longest is read, and a name is read only as
whole words (or characters, in scripts that put no spaces between words), so that neither
"disagreement" nor "lack of agreement" is ever read as "agreement".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from metallm_stream.judge import answer_text, spelling, statements

# Scripts without spaces, or with particles joined to the word: one token a character.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
)
_LETTER = rf"(?:(?![{UNSPACED}])[^\W_]|[\u0300-\u036f\u0900-\u0dff])"
_NUMBER = r"(?<![^\W_])[-+]?\d+(?:[.,]\d+)*(?![^\W_])"
_WORD = rf"[{UNSPACED}]|{_NUMBER}|{_LETTER}+"
_WORDS = re.compile(_WORD)
_WORDS_AND_SIGNS = re.compile(rf"{_WORD}|[^\w\s]")
# One letter, but not in "B's", "I'm", "C++" or "C#".
_PART_OF_WORD = re.compile(r"'\w|[+#]")
_BREAK = re.compile(r"\s*[^\w\s'/+]")

Tokens = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Name:
    """What an answer may write for a label."""

    tokens: Tokens
    spelled: str
    label: str


@dataclass(frozen=True, slots=True)
class Mention:
    """One place where a label is named: `text[start:end]`.

    `same_case` is False for a single letter in another case than the name's: "a" is rarely "A".
    """

    label: str
    start: int
    end: int
    same_case: bool


@dataclass(frozen=True, slots=True)
class LabelReader:
    """Reads labels from plain text (`spelling.plain`).

    Parameters
    ----------
    names
        By first token: the names that begin with it, longest first.
    tokens
        What counts as a token: words, or words and signs where labels differ in signs alone.
    form
        The form in which tokens are compared.
    """

    names: Mapping[str, tuple[Name, ...]]
    tokens: re.Pattern[str]
    form: Callable[[str], str]

    def find(self, text: str) -> tuple[Mention, ...]:
        """All places where a label is named, in order, without overlap.

        >>> [found.label for found in reader((("B", "B"), ("Type B", "Type B"))).find('type b, B')]
        ['Type B', 'B']
        """
        return tuple(self._scan(text))

    def _scan(self, text: str) -> Iterator[Mention]:
        found = [match.span() for match in self.tokens.finditer(text)]
        forms = tuple(self.form(text[start:end]) for start, end in found)
        place = 0
        while place < len(forms):
            name = self._name_at(forms, place)
            if name is None:
                place += 1
                continue
            start, end = found[place][0], found[place + len(name.tokens) - 1][1]
            place += len(name.tokens)
            letter = end - start == 1 and text[start].isalpha()
            if not (letter and _PART_OF_WORD.match(text, end)):
                same_case = not letter or text[start] == name.spelled
                yield Mention(name.label, start, end, same_case=same_case)

    def _name_at(self, forms: Tokens, place: int) -> Name | None:
        names = self.names.get(forms[place], ())
        fitting = (name for name in names if forms[place : place + len(name.tokens)] == name.tokens)
        return next(fitting, None)


def exactly(mentions: tuple[Mention, ...], text: str) -> str | None:
    """The label that the whole text is, but for case and signs around it."""
    if len(mentions) != 1 or _has_words(text[mentions[0].end :]):
        return None
    return begins(mentions, text)


def begins(mentions: tuple[Mention, ...], text: str) -> str | None:
    """The label that the text begins with, as a word."""
    if not mentions or _has_words(text[: mentions[0].start]):
        return None
    return mentions[0].label


def opens(mentions: tuple[Mention, ...], text: str) -> str | None:
    """The label that the text begins with, if a punctuation mark sets it off."""
    set_off = mentions and _BREAK.match(text, mentions[0].end)
    return begins(mentions, text) if set_off else None


def stated(mentions: tuple[Mention, ...], text: str, noun: str | None) -> str | None:
    """The label of the last explicit statement; "B or C" is not one."""
    for this, following in reversed(list(zip(mentions, (*mentions[1:], None), strict=False))):
        either = following is not None and statements.either(text[this.end : following.start])
        if not either and statements.is_stated(
            text, this.start, this.end, noun=noun, same_case=this.same_case
        ):
            return this.label
    return None


def only(mentions: tuple[Mention, ...], text: str) -> str | None:
    """The label mentioned, if it is one label alone; negated mentions do not count."""
    labels = {
        mention.label
        for mention in mentions
        if mention.same_case and statements.is_meant(text, mention.start, mention.end)
    }
    return labels.pop() if len(labels) == 1 else None


def read(labels: LabelReader, text: str, noun: str | None) -> str | None:
    """The label that an answer gives, by the rules of `classification`, or None."""
    text = spelling.without_emphasis(spelling.plain(answer_text.final(text)))
    mentions = labels.find(text)
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    return (
        exactly(mentions, text)
        or stated(mentions, text, noun)
        or only(mentions, text)
        or exactly(labels.find(lines[0]), lines[0])
        or exactly(labels.find(lines[-1]), lines[-1])
        or opens(mentions, text)
    )


@lru_cache(maxsize=256)
def reader(names: tuple[tuple[str, str], ...]) -> LabelReader:
    """The reader for `names`, pairs of (name in the answer, label that it stands for).

    Case and signs do not matter, unless names differ in nothing else.
    """
    plain = tuple((spelling.plain(name).strip(), label) for name, label in names)
    forms: tuple[Callable[[str], str], ...] = (spelling.fold, str)
    for form, tokens in product(forms, (_WORDS, _WORDS_AND_SIGNS)):
        known = {
            name.tokens: name
            for spelled, label in reversed(plain)
            if (name := Name(_tokens(spelled, tokens, form), spelled, label)).tokens
        }
        if len(known) == len({spelled for spelled, _ in plain}):
            break
    by_first: dict[str, tuple[Name, ...]] = {}
    for name in sorted(known.values(), key=lambda name: -len(name.tokens)):
        by_first[name.tokens[0]] = (*by_first.get(name.tokens[0], ()), name)
    return LabelReader(names=by_first, tokens=tokens, form=form)


def _tokens(spelled: str, tokens: re.Pattern[str], form: Callable[[str], str]) -> Tokens:
    return tuple(form(match[0]) for match in tokens.finditer(spelled))


def _has_words(text: str) -> bool:
    return any(char.isalnum() for char in text)
