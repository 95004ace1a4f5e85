"""Which records of one partition are done, when they are finished out of order.

Invariant: `next_offset` and `encode()` together say exactly which records are done. A process
that restores them skips the finished ones above the first unfinished, and repeats all others.
Offsets are encoded, never counts: transaction markers and compaction leave gaps.

The metadata is `m1:` and in base64 a letter and the bitmap of finished offsets: `r`, as it is, or
`z`, as a zlib stream and behind it the topic's id, if known. Who knows of no id reads the stream.
With `m2:` and an offset before that, the bitmap ends there: what is done from there on is not told.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable

import numpy as np

from metallm_stream.errors import ConfigurationError

MAX_METADATA_CHARACTERS = 4_095
# The metadata holds the bitmap of 24,000 offsets that do not compress, and the topic's id; one long
# gap more is a run of zeros, which compresses.
MAX_SPAN = 20_000
_VERSION, _CUT_VERSION = "m1:", "m2:"


class Window:
    """The records in work and done of one partition.

    Parameters
    ----------
    next_offset
        The first offset that is not done.
    metadata
        What was committed with `next_offset`, as `encode` wrote it.
    finished
        Further offsets that are done.

    Attributes
    ----------
    topic_id
        The id of the topic whose offsets these are, if it is known: at first, as committed.
    told_below
        From this offset on, the metadata need not tell what was done before this window began:
        what came of it does. None if the metadata must tell all.

    Examples
    --------
    >>> window = Window(10)
    >>> [window.begin(offset) for offset in (10, 11, 13)]
    [True, True, True]
    >>> window.finish(13)
    >>> window.next_offset
    10
    >>> again = Window(10, window.encode())
    >>> [again.begin(offset) for offset in (10, 11, 13)]
    [True, True, False]
    >>> again.finish(10); again.finish(11)
    >>> again.next_offset
    14
    """

    def __init__(
        self, next_offset: int, metadata: str | None = None, finished: Iterable[int] = ()
    ) -> None:
        self._position = self._first = next_offset
        self._unfinished: dict[int, None] = {}
        self.told_below, self._finished, self.topic_id = _decode(next_offset, metadata)
        self._finished.update(finished)
        self._found: set[int] = set()  # of those to be read yet; some may never come
        self._found_end = next_offset

    @property
    def next_offset(self) -> int:
        """The first offset that is not done: what is committed."""
        return next(iter(self._unfinished), self._position)

    @property
    def is_full(self) -> bool:
        """Whether new records must wait until the first unfinished one is done."""
        return self._position - self.next_offset >= MAX_SPAN

    @property
    def unfinished(self) -> int:
        """How many records are in work."""
        return len(self._unfinished)

    def left(self, end: int) -> int:
        """How many records below `end` are not done; offsets without a record count as well."""
        return max(0, end - self._position) + len(self._unfinished)

    def begin(self, offset: int) -> bool:
        """Take one record into work; False if it was handed out or finished before.

        Offsets come in ascending order; one below the position is a repetition.
        """
        if offset < self._position:
            return False
        self._position = offset + 1
        if offset in self._finished or offset in self._found:
            self._found.discard(offset)
            self._finished.add(offset)
            self._forget()
            return False
        self._unfinished[offset] = None
        return True

    def begin_at(self, offset: int) -> None:
        """Pass over what the log no longer holds below `offset`."""
        self._position = max(self._position, offset)
        self._forget()

    def end_at(self, offset: int) -> None:
        """Forget what was finished from `offset` on: the log has lost it, and ends there."""
        self._finished = {each for each in self._finished if each < offset}

    def add(self, start: int, found: Window) -> None:
        """Take over what was found to be done from `start` on, which can be found again."""
        self.told_below = start
        if start <= self._position:
            self._position = max(self._position, found.next_offset)
        else:
            self._found.update(range(start, found.next_offset))
        self._found |= found._finished
        self._found_end = max(self._found, default=start) + 1
        self._forget()

    def finish(self, offset: int) -> None:
        """Mark a record in work as done; its outcome goes into the next commit."""
        del self._unfinished[offset]
        self._finished.add(offset)
        self._forget()

    def encode(self) -> str:
        """The finished offsets from `next_offset` on, and the topic's id, as metadata.

        Where others were found to have finished some so far above that they might not fit beside
        what is done meanwhile, those are left out that were not read yet.
        """
        version, finished = _VERSION, self._finished
        if self.told_below is not None and self._found_end > self.next_offset + MAX_SPAN:
            version = f"{_CUT_VERSION}{max(self._position, self.told_below)}:"
        elif self._found:
            finished = finished | self._found
        above = np.fromiter(finished, np.int64, len(finished)) - self.next_offset
        above = above[above >= 0]
        text = version + self._packed(above)
        if len(text) > MAX_METADATA_CHARACTERS:
            raise ConfigurationError(
                f"{above.size} finished records above an unfinished one need {len(text)} "
                f"characters of offset metadata, {MAX_METADATA_CHARACTERS} fit: lower the worker's "
                "concurrency"
            )
        return "" if text == _VERSION else text

    def _packed(self, above: np.ndarray) -> str:
        if not above.size and self.topic_id is None:
            return ""
        bits = np.zeros(int(above.max(initial=-1)) // 8 + 1, np.uint8)
        np.bitwise_or.at(bits, above // 8, (1 << above % 8).astype(np.uint8))
        bitmap = bits.tobytes()
        body = zlib.compress(bitmap, 1) + (self.topic_id or "").encode("ascii")
        flag, body = (b"z", body) if self.topic_id or len(body) < len(bitmap) else (b"r", bitmap)
        return base64.b64encode(flag + body).decode("ascii")

    def _forget(self) -> None:
        passed = range(self._first, self.next_offset)
        self._first = self.next_offset
        if len(passed) < len(self._finished):
            self._finished.difference_update(passed)
        elif passed:
            self._finished = {offset for offset in self._finished if offset >= self._first}


def _decode(first: int, metadata: str | None) -> tuple[int | None, set[int], str | None]:
    if not metadata:
        return None, set(), None
    if not metadata.startswith((_VERSION, _CUT_VERSION)):
        raise ConfigurationError(
            f"committed metadata {metadata[:20]!r} is not ours: another program commits offsets "
            "with this consumer group; give it a group of its own"
        )
    try:
        told_below, body = None, metadata.removeprefix(_VERSION)
        if metadata.startswith(_CUT_VERSION):
            cut, body = metadata.removeprefix(_CUT_VERSION).split(":")
            told_below = int(cut)
        raw = base64.b64decode(body, validate=True)
        bitmap, topic_id = _unpacked(raw[1:]) if raw[:1] == b"z" else (raw[1:], "")
    except (ValueError, zlib.error) as exc:
        raise ConfigurationError(f"committed metadata is damaged: {exc}") from exc
    finished = {
        first + 8 * place + bit
        for place, byte in enumerate(bitmap)
        if byte
        for bit in range(8)
        if byte >> bit & 1
    }
    return told_below, finished, topic_id or None


def _unpacked(packed: bytes) -> tuple[bytes, str]:
    """The bitmap, and the topic's id behind it, if there is one."""
    stream = zlib.decompressobj()
    bitmap = stream.decompress(packed)
    if not stream.eof:
        raise zlib.error("the stream is cut off")
    return bitmap, stream.unused_data.decode("ascii")
