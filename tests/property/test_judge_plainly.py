"""What is fast in the judge gives what its plain form gives."""

from __future__ import annotations

import re
import unicodedata
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from metallm_stream.judge import free_text, label_reader, spelling
from metallm_stream.judge.label_reader import LabelReader

# Signs with and without a meaning, what composes, what grows, what vanishes.
ODD = st.text(alphabet="ab1.-#%_ '\u0301\u0345\u03b1\u0313\u1100\u1161\u3300\ufdfa\u02bc:/\u00df\n")
FEW = st.text(alphabet="ab .-", min_size=1, max_size=9)
MEANT = re.compile(r"(?<=\d)[.,:/](?=\d)|(?<![^\W_])-(?=\d)|(?<=[^\W_])#|[%&@]")


def bare(text: str) -> str:
    """`spelling.bare`, one character after the other."""
    folded = spelling.fold(text)
    kept = "".join(
        " "
        if (unicodedata.category(char).startswith("P") or char in "`^~")
        and not MEANT.match(folded, place)
        else char
        for place, char in enumerate(folded)
    )
    return " ".join((kept if kept.strip() else folded).split())


def find(reader: LabelReader, text: str) -> list[tuple[str, int, int]]:
    """`reader.find` by trying all names at every word, for names of more than one letter."""
    known = chain.from_iterable(reader.names.values())
    names = sorted(known, key=lambda name: -len(name.tokens))
    found = [match.span() for match in reader.tokens.finditer(text)]
    forms = tuple(reader.form(text[start:end]) for start, end in found)
    mentions, place = [], 0
    while place < len(forms):
        fits = (name for name in names if forms[place:][: len(name.tokens)] == name.tokens)
        if (name := next(fits, None)) is None:
            place += 1
            continue
        last = place + len(name.tokens)
        mentions.append((name.label, found[place][0], found[last - 1][1]))
        place = last
    return mentions


@given(text=ODD)
def test_bare_texts(text: str) -> None:
    """Runs of punctuation are found as single signs are."""
    assert spelling.bare(text) == bare(text)


@given(text=ODD, other=ODD, dress=st.sampled_from(["{}", " .. {}!", "{0} {0}", "{}\u0301", "{}b"]))
def test_free_texts(text: str, other: str, dress: str) -> None:
    """No answer that has the label's words is taken for a longer one."""
    for prediction in (dress.format(text), other, " \n." * 100 + text):
        assert free_text.quality(prediction, text) == float(bare(prediction) == bare(text))


@given(names=st.lists(FEW, min_size=1, max_size=8, unique=True), text=st.text(alphabet="ab .-"))
def test_names_in_texts(names: list[str], text: str) -> None:
    """Of names that begin at the same word the longest is found, and the first label alike."""
    reader = label_reader.reader(tuple((name, name) for name in names))
    mentions = reader.find(text)
    assert [(one.label, one.start, one.end) for one in mentions] == find(reader, text)
    assert label_reader.beginning(reader, text) == label_reader.begins(mentions, text)
