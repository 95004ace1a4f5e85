"""The ids of one partition that were decided lately, so that a query seen twice is decided once.

Invariant: the first decision on an id stands; an id added again changes nothing. The window holds
ids whose decision may not have committed yet, so whoever gives up decisions of a partition without
committing them must drop the partition's window with them and rebuild it from what was committed.
"""

from __future__ import annotations

from collections import OrderedDict


class RecentIds:
    """The newest `limit` ids of one partition with their fingerprints, first in, first out.

    >>> recent = RecentIds(limit=2)
    >>> for query_id in ("a", "b", "c"):
    ...     recent.add(query_id, f"fingerprint of {query_id}")
    >>> recent.seen("a"), recent.seen("c")
    (None, 'fingerprint of c')

    Raises `ValueError` if `limit` is below 1.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1 id, got {limit}")
        self._limit = limit
        # Not a dict: taking the first item of a dict, again and again, slows down as it is used.
        self._fingerprints: OrderedDict[str, str] = OrderedDict()

    def seen(self, query_id: str) -> str | None:
        """The fingerprint under which the id was decided, or None if it was not, lately."""
        return self._fingerprints.get(query_id)

    def add(self, query_id: str, fingerprint: str) -> None:
        """Note a decision; the oldest ids beyond the limit go."""
        self._fingerprints.setdefault(query_id, fingerprint)
        while len(self._fingerprints) > self._limit:
            self._fingerprints.popitem(last=False)

    def __len__(self) -> int:
        return len(self._fingerprints)
