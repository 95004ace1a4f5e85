"""However calls finish and whenever the process dies, each is done once."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from metallm_stream.kafka import Window
from metallm_stream.kafka.out_of_order import MAX_METADATA_CHARACTERS, MAX_SPAN

GAPS = st.one_of(st.just(1), st.just(2), st.integers(1, 9), st.integers(1_000, 3_000))


class Partition(RuleBasedStateMachine):
    """A log with gaps, and a worker that reads it, finishes in any order, commits and dies."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[int] = []
        self.read = 0
        self.done: set[int] = set()
        self.in_work: list[int] = []
        self.committed = (0, "")
        self.committed_done: set[int] = set()
        self.window = Window(0)

    @initialize(start=st.integers(0, 1_000))
    def begin_anywhere(self, start: int) -> None:
        """The log's first offset is rarely 0."""
        self.committed = (start, "")
        self.window = Window(start)
        self.end = start

    @rule(gap=GAPS)
    def write(self, gap: int) -> None:
        """One more record, with or without a hole before it."""
        self.end += gap
        self.log.append(self.end)

    @precondition(lambda self: self.read < len(self.log))
    @rule()
    def take(self) -> None:
        """Read one record: it is handed out exactly if it is not done."""
        offset = self.log[self.read]
        self.read += 1
        handed_out = self.window.begin(offset)
        assert handed_out is (offset not in self.done)
        if handed_out:
            self.in_work.append(offset)

    @precondition(lambda self: self.in_work)
    @rule(choice=st.integers(0))
    def finish(self, choice: int) -> None:
        """Any record in work may be the next to be done."""
        offset = self.in_work.pop(choice % len(self.in_work))
        self.window.finish(offset)
        self.done.add(offset)

    @precondition(lambda self: self.read > 0)
    @rule(choice=st.integers(0))
    def repeat(self, choice: int) -> None:
        """A record that was read before and comes again is not handed out again."""
        assert not self.window.begin(self.log[choice % self.read])

    @rule()
    def commit(self) -> None:
        """Offset and metadata become durable together with the results so far."""
        self.committed = (self.window.next_offset, self.window.encode())
        self.committed_done = set(self.done)

    @rule()
    def die(self) -> None:
        """Whatever was not committed is undone, and reading begins at the committed offset."""
        next_offset, metadata = self.committed
        self.window = Window(next_offset, metadata)
        self.done = set(self.committed_done)
        self.in_work = []
        self.read = sum(offset < next_offset for offset in self.log)

    @invariant()
    def everything_below_the_offset_is_done(self) -> None:
        """No record is ever skipped."""
        below = [offset for offset in self.log if offset < self.window.next_offset]
        assert self.done.issuperset(below)

    @invariant()
    def the_first_unfinished_holds_the_offset(self) -> None:
        """And nothing above it moves it."""
        if self.in_work:
            assert self.window.next_offset <= min(self.in_work)
        assert self.window.unfinished == len(self.in_work)


TestPartition = Partition.TestCase
TestPartition.settings = settings(max_examples=150, stateful_step_count=60)


@given(
    gaps=st.lists(GAPS, min_size=1, max_size=60),
    order=st.randoms(use_true_random=False),
    finished=st.integers(0, 60),
)
def test_a_restored_window_hands_out_exactly_the_unfinished(gaps, order, finished) -> None:
    """From next offset and metadata alone, at any point of any order."""
    offsets = np.cumsum(gaps).tolist()
    window = Window(0)
    for offset in offsets:
        assert window.begin(offset)
    done = order.sample(offsets, min(finished, len(offsets)))
    for offset in done:
        window.finish(offset)
    again = Window(window.next_offset, window.encode())
    seen = [offset for offset in offsets if offset >= window.next_offset]
    assert [o for o in seen if again.begin(o)] == [o for o in offsets if o not in done]
    assert again.next_offset == window.next_offset


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    largest_gap=st.integers(1, 40),
    one_gap=st.integers(1, 1_000_000),
    finished=st.floats(0, 1),
)
def test_the_metadata_of_a_full_window_fits(
    seed: int, largest_gap: int, one_gap: int, finished: float
) -> None:
    """Whatever the pattern of gaps, one long one among them, and of what is done."""
    rng = np.random.default_rng(seed)
    gaps = rng.integers(1, largest_gap, MAX_SPAN, endpoint=True)
    gaps[rng.integers(1, MAX_SPAN // largest_gap)] = one_gap
    window = Window(0)
    begun = []
    for offset in np.cumsum(gaps).tolist():
        if window.is_full:
            break
        window.begin(offset)
        begun.append(offset)
    for offset, is_done in zip(begun[1:], rng.random(len(begun) - 1) < finished, strict=True):
        if is_done:
            window.finish(offset)
    text = window.encode()
    assert len(text) <= MAX_METADATA_CHARACTERS
    again = Window(window.next_offset, text)
    assert [again.begin(offset) for offset in begun] == [
        offset in window._unfinished for offset in begun
    ]
