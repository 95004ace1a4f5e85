"""The ids that were decided lately, so that a query seen twice is decided once.

Invariant: an id counts as decided only once the transaction with its decision has committed;
what an aborted batch added is forgotten, or its queries would be taken for duplicates when they
are read again.
"""

from __future__ import annotations

from collections import OrderedDict


class RecentIds:
    """The newest `limit` ids of one partition with their fingerprints, first in, first out.

    An id that is added again keeps its first fingerprint and its place. Ids added since the last
    `commit` are seen at once and come on top of `limit`.

    >>> recent = RecentIds(limit=2)
    >>> for query_id in ("a", "b", "c"):
    ...     recent.add(query_id, f"fingerprint of {query_id}")
    >>> recent.commit()
    >>> recent.seen("a"), recent.seen("c")
    (None, 'fingerprint of c')

    Raises `ValueError` if `limit` is below 1.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1 id, got {limit}")
        self._limit = limit
        self._committed: OrderedDict[str, str] = OrderedDict()
        self._added: dict[str, str] = {}

    def seen(self, query_id: str) -> str | None:
        """The fingerprint under which the id was decided, or None if it was not, lately."""
        return self._committed.get(query_id) or self._added.get(query_id)

    def add(self, query_id: str, fingerprint: str) -> None:
        """Note a decision that is being written now."""
        if query_id not in self._committed:
            self._added.setdefault(query_id, fingerprint)

    def commit(self) -> None:
        """Keep what was added; the oldest ids beyond the limit go."""
        self._committed.update(self._added)
        self._added.clear()
        while len(self._committed) > self._limit:
            self._committed.popitem(last=False)

    def rollback(self) -> None:
        """Forget what was added since the last commit."""
        self._added.clear()

    def __len__(self) -> int:
        return len(self._committed) + len(self._added)
