"""The window of one partition: what it hands out, what it commits, what it refuses."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence

import numpy as np
import pytest

from metallm_stream.errors import ConfigurationError
from metallm_stream.kafka import Window
from metallm_stream.kafka.out_of_order import MAX_METADATA_CHARACTERS, MAX_SPAN


def opened(*offsets: int, at: int = 0) -> Window:
    """A window that has these records in work."""
    window = Window(at)
    for offset in offsets:
        assert window.begin(offset)
    return window


def test_in_order_there_is_nothing_to_tell() -> None:
    """Without gaps the next offset says it all, and the metadata is empty."""
    window = opened(5, 6, 7, at=5)
    for offset in (5, 6, 7):
        window.finish(offset)
        assert window.encode() == ""
    assert window.next_offset == 8


def test_a_slow_record_holds_back_the_offset_but_no_other_record() -> None:
    """What is finished above it is kept in the metadata."""
    window = opened(0, 1, 2, 3)
    for offset in (3, 1, 2):
        window.finish(offset)
    assert window.next_offset == 0
    again = Window(0, window.encode())
    assert [again.begin(offset) for offset in range(5)] == [True, False, False, False, True]


def test_offsets_that_are_no_records_are_no_gaps() -> None:
    """Transaction markers and compacted records leave holes that nobody will ever finish."""
    window = opened(10, 12, 40, at=10)
    for offset in (10, 12, 40):
        window.finish(offset)
    assert window.next_offset == 41


def test_a_window_may_begin_behind_its_first_record() -> None:
    """The first record after the committed offset may stand far above it."""
    window = opened(100, at=0)
    assert window.next_offset == 100
    window.finish(100)
    assert window.next_offset == 101


def test_many_records_finished_before_are_passed_over_in_no_time() -> None:
    """Not all that are left are looked at for each."""
    window, count = Window(0, finished=range(1, 200_000)), 200_000
    window.begin(0)
    window.finish(0)
    assert not any(window.begin(offset) for offset in range(1, count))
    assert (window.next_offset, window.encode()) == (count, "")


def test_a_record_below_the_position_is_a_repetition() -> None:
    """Whatever a rebalance delivers again is not handed out twice."""
    window = opened(0, 1)
    assert not window.begin(0)
    window.finish(0)
    assert not window.begin(0)
    assert not window.begin(1)
    assert window.begin(2)


def test_finishing_what_is_not_in_work_is_a_mistake_of_ours() -> None:
    """It raises; a record cannot be done twice."""
    window = opened(0)
    window.finish(0)
    with pytest.raises(KeyError):
        window.finish(0)


def test_restored_metadata_is_forgotten_once_it_is_passed() -> None:
    """A window that ran for a year is as small as a new one."""
    window = opened(0, 1, 2)
    window.finish(1)
    window.finish(2)
    again = Window(0, window.encode())
    assert again.begin(0)
    assert not again.begin(1)
    assert not again.begin(2)
    again.finish(0)
    assert again.next_offset == 3
    assert again.encode() == ""


def test_a_full_window_says_so() -> None:
    """Before the metadata cannot hold any more, new records must wait."""
    window = opened(*range(MAX_SPAN - 1))
    assert not window.is_full
    assert window.begin(MAX_SPAN - 1)
    assert window.is_full
    for offset in range(1, MAX_SPAN):
        window.finish(offset)
    assert window.is_full
    assert window.unfinished == 1
    window.finish(0)
    assert not window.is_full


def test_metadata_that_the_broker_would_refuse_is_refused_before() -> None:
    """Rather end than commit an offset without what belongs to it."""
    offsets = [(number * number) % 1_000_003 + number * 1_000_003 for number in range(3_000)]
    window = opened(*offsets)
    for offset in offsets[1:]:
        window.finish(offset)
    with pytest.raises(ConfigurationError, match="characters of offset metadata"):
        window.encode()


@pytest.mark.parametrize("finished", [(), (1,), range(1, MAX_SPAN, 2)])
def test_the_topics_id_stands_where_those_who_know_of_none_read_over_it(
    finished: Sequence[int],
) -> None:
    """They unpack the bitmap's stream and see nothing behind it."""
    window = opened(*range(MAX_SPAN))
    window.topic_id = "x8m3-rY2QJaAAzkIrj_0Pg"
    for offset in finished:
        window.finish(offset)
    raw = base64.b64decode(window.encode().removeprefix("m1:"), validate=True)
    assert raw[:1] == b"z"
    bits = np.unpackbits(np.frombuffer(zlib.decompress(raw[1:]), np.uint8), bitorder="little")
    assert np.flatnonzero(bits).tolist() == list(finished)
    again = Window(0, window.encode())
    assert again.topic_id == window.topic_id
    assert [offset for offset in range(MAX_SPAN) if not again.begin(offset)] == list(finished)


def test_the_topics_id_fits_beside_bitmaps_that_do_not_compress() -> None:
    """Of the longest span that is let in, whatever is finished in it."""
    window = opened(*range(MAX_SPAN))
    window.topic_id = "x8m3-rY2QJaAAzkIrj_0Pg"
    for offset in np.flatnonzero(np.random.default_rng(0).random(MAX_SPAN - 1) < 0.5) + 1:
        window.finish(int(offset))
    assert len(window.encode()) < MAX_METADATA_CHARACTERS


@pytest.mark.parametrize("metadata", [None, ""])
def test_without_metadata_everything_above_is_undone(metadata: str | None) -> None:
    """A group that never committed, or committed in order."""
    window = Window(3, metadata)
    assert [window.begin(offset) for offset in (3, 4)] == [True, True]


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("hello", "another program"),
        ("m3:cg==", "another program"),
        ("m2:cg==", "damaged"),
        ("m2:x:cg==", "damaged"),
        ("m1:!", "damaged"),
        ("m1:" + base64.b64encode(b"z" + zlib.compress(b"abc") + b"\xff").decode(), "damaged"),
        ("m1:" + base64.b64encode(b"z" + zlib.compress(b"abc")[:-3]).decode(), "damaged"),
    ],
)
def test_metadata_that_is_not_ours_is_refused(metadata: str, said: str) -> None:
    """Guessing would repeat or lose calls."""
    with pytest.raises(ConfigurationError, match=said):
        Window(0, metadata)


def test_metadata_is_plain_text_that_kafka_takes() -> None:
    """ASCII, and short even for a long window."""
    window = opened(*range(0, 4_000, 2))
    for offset in range(2, 4_000, 4):
        window.finish(offset)
    text = window.encode()
    assert text.isascii()
    assert len(text) < MAX_METADATA_CHARACTERS


def test_what_was_found_and_does_not_fit_is_left_to_be_found_again() -> None:
    """What was done since fits, and stands in the metadata wherever it was read to."""
    undone = sorted(np.random.default_rng(0).permutation(100_000)[:5_000].tolist())
    window, found = Window(0), Window(0, finished=set(range(100_000)) - set(undone))
    window.topic_id = "x8m3-rY2QJaAAzkIrj_0Pg"
    for _ in range(3):
        window.add(window.told_below or 0, found)
        begun = [offset for offset in range(undone[0], undone[399] + 1) if window.begin(offset)]
        assert begun == undone[:400]
        for offset in begun[1::2]:
            window.finish(offset)
        undone = [offset for offset in undone if offset not in begun[1::2]]
        window = Window(window.next_offset, window.encode())
        assert window.told_below == begun[-1] + 1
        assert window.topic_id == "x8m3-rY2QJaAAzkIrj_0Pg"


def test_what_was_found_and_just_fits_leaves_room_for_what_is_done_next() -> None:
    """Who restores it cannot find it again, and must hold what is done out of order meanwhile."""
    rng = np.random.default_rng(0)
    far = (MAX_SPAN + rng.permutation(400_000)[:500]).tolist()
    window = Window(0)
    window.add(0, Window(0, finished=far))
    again = Window(window.next_offset, window.encode())
    if again.told_below is not None:
        again.add(again.told_below, Window(0, finished=far))
    for offset in range(MAX_SPAN):
        again.begin(offset)
    for offset in np.flatnonzero(rng.random(MAX_SPAN - 1) < 0.5) + 1:
        again.finish(int(offset))
    assert len(again.encode()) <= MAX_METADATA_CHARACTERS
