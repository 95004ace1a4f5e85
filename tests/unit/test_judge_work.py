"""How much is done to judge one answer, whatever query, answer and label hold."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

from metallm_stream.events import Query
from metallm_stream.judge import label_reader, parse, quality, spelling


def lines_run(call: Callable[[], object]) -> int:
    """Lines of Python that a call runs: work that no other load changes."""
    count = 0

    def trace(_: FrameType, event: str, __: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_an_answer_much_longer_than_the_label_is_not_normalised() -> None:
    """One character may become 18, but a megabyte of them need not be written out."""
    answer = "\ufdfa" * 100_000
    tracemalloc.start()
    try:
        judged = quality(prediction=answer, label="x", score=None, labels=None, task=None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert judged == 0.0
    assert peak < 1_000_000


def test_the_search_for_names_does_not_grow_with_their_number() -> None:
    """A thousand names that begin alike are tried as fast as ten."""
    text = "a " * 100

    def work(count: int) -> int:
        names = tuple((f"a a a x{number}", str(number)) for number in range(count))
        reader = label_reader.reader(names)
        return lines_run(lambda: reader.find(text))

    assert work(1_000) < 1.5 * work(10)


def test_a_listed_option_is_read_no_further_than_a_label_can_reach() -> None:
    """The rest of a long line is no option."""
    read: list[str] = []

    def form(token: str) -> str:
        read.append(token)
        return spelling.fold(token)

    reader = replace(label_reader.reader((("very sad", "sad"), ("fear", "fear"))), form=form)
    assert label_reader.beginning(reader, "... Very sad, " + "or so " * 10_000) == "sad"
    assert label_reader.beginning(reader, "so " * 10_000) is None
    assert len(read) < 20
    query = Query(
        query_id="q", text="A: Fear " + "of it " * 100 + "\nB: joy", labels=("fear", "joy")
    )
    assert parse(query, "B") == "joy"


def test_readers_of_very_long_names_are_not_kept() -> None:
    """Each takes megabytes, and a query's labels are the user's to choose."""
    few = (("yes", "yes"), ("no", "no"))
    assert label_reader.reader(few) is label_reader.reader(few)
    many = tuple((f"{number} " + "x" * 250, str(number)) for number in range(100))
    assert label_reader.reader(many) is not label_reader.reader(many)
