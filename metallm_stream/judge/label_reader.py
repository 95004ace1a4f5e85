"""Finds the labels of one query in prose, word by word.

Invariant: of names that begin at the same word the longest is read, and a name is read only as
whole words (or characters, in scripts that put no spaces between words), so that neither
"disagreement" nor "lack of agreement" is ever read as "agreement".
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import compress, count, product
from operator import attrgetter, itemgetter, ne

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
_CACHED_CHARACTERS = 20_000

Tokens = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Name:
    """What an answer may write for a label; `within` is the longest other name it begins with."""

    tokens: Tokens
    spelled: str
    label: str
    within: Name | None = None


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
        By first token: the names that begin with it, in the order of their tokens.
    longest
        The tokens of the longest name.
    tokens
        What counts as a token: words, or words and signs where labels differ in signs alone.
    form
        The form in which tokens are compared.
    """

    names: Mapping[str, list[Name]]
    longest: int
    tokens: re.Pattern[str]
    form: Callable[[str], str]

    def find(self, text: str, *, until: int | None = None) -> tuple[Mention, ...]:
        """All places where a label is named, in order, without overlap.

        With `until` those that begin at this character or before it.

        >>> [found.label for found in reader((("B", "B"), ("Type B", "Type B"))).find('type b, B')]
        ['Type B', 'B']
        """
        return tuple(self._scan(text, len(text) if until is None else until))

    def _scan(self, text: str, until: int) -> Iterator[Mention]:
        found = [match.span() for match in self.tokens.finditer(text)]
        places = bisect_right(found, until, key=itemgetter(0))
        read = found[: places + self.longest]
        forms = tuple(sys.intern(self.form(text[start:end])) for start, end in read)
        place = 0
        while place < places:
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
        names = self.names.get(forms[place], [])
        following = forms[place : place + self.longest]
        # Every name that `following` begins with is the last one in order up to it, or within that.
        last = bisect_right(names, following, key=attrgetter("tokens"))
        name = names[last - 1] if last else None
        shared = 0 if name is None else _shared(name.tokens, following)
        while name is not None and len(name.tokens) > shared:
            name = name.within
        return name


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


def beginning(labels: LabelReader, text: str) -> str | None:
    """The same as `begins` says of all mentions; none behind the first word is looked for."""
    first = next((place for place, char in enumerate(text) if char.isalnum()), len(text))
    return begins(labels.find(text, until=first), text)


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


def reader(names: tuple[tuple[str, str], ...]) -> LabelReader:
    """The reader for `names`, pairs of (name in the answer, label that it stands for).

    Case and signs do not matter, unless names differ in nothing else. Those of the last 256 sets of
    names are kept, unless they are very long.
    """
    if sum(len(name) for name, _ in names) > _CACHED_CHARACTERS:
        return _new_reader(names)
    return _kept_reader(names)


def _new_reader(names: tuple[tuple[str, str], ...]) -> LabelReader:
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
    longest = max(map(len, known), default=0)
    return LabelReader(names=_by_first(known), longest=longest, tokens=tokens, form=form)


_kept_reader = lru_cache(maxsize=256)(_new_reader)


def _by_first(known: Mapping[Tokens, Name]) -> dict[str, list[Name]]:
    """The names by first token, in the order of their tokens."""
    by_first: dict[str, list[Name]] = {}
    before: Name | None = None
    for tokens in sorted(known):
        while before is not None and tokens[: len(before.tokens)] != before.tokens:
            before = before.within
        before = replace(known[tokens], within=before)
        by_first.setdefault(tokens[0], []).append(before)
    return by_first


def _shared(tokens: Tokens, others: Tokens) -> int:
    """How many tokens the two have in common from their beginning."""
    return next(compress(count(), map(ne, tokens, others)), min(len(tokens), len(others)))


def _tokens(spelled: str, tokens: re.Pattern[str], form: Callable[[str], str]) -> Tokens:
    # Interned: a text of a script without spaces has one token a character.
    return tuple(sys.intern(form(match[0])) for match in tokens.finditer(spelled))


def _has_words(text: str) -> bool:
    return any(char.isalnum() for char in text)
