"""A query as it arrived.

Invariant: what follows from a query and its place alone is worked out once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from metallm_stream.events import Query, call_id
from metallm_stream.route.constraints import characters
from metallm_stream.route.fingerprint import fingerprint


@dataclass(frozen=True, slots=True)
class Arrival:
    """A query and where it stands: partition and offset in `queries`, and the record's time.

    `characters` is the prompt's length, `call_id` the identity of the call that is made of it.
    """

    query: Query
    partition: int
    offset: int
    recorded_at: datetime
    fingerprint: str = field(init=False)
    characters: int = field(init=False)
    call_id: str = field(init=False)

    def __post_init__(self) -> None:
        query, mark = self.query, fingerprint(self.query)
        called = call_id(query.query_id, mark, self.partition, self.offset)
        object.__setattr__(self, "fingerprint", mark)
        object.__setattr__(self, "characters", characters(query))
        object.__setattr__(self, "call_id", called)

    @property
    def asked_at(self) -> datetime:
        """When it was asked, as far as anybody says."""
        return self.query.asked_at or self.recorded_at
