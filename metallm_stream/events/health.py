"""What workers tell of their vendors and of themselves.

Invariant: each kind of record has keys of its own on the topic.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from metallm_stream.events.base import Event
from metallm_stream.events.bounds import Moment, Name, Note, Usd


class ArmHealth(Event):
    """What one worker sees of an arm, or of its whole provider where `arm` is absent.

    An open circuit is tried again after `retry_at`. After `valid_until` the record says nothing:
    its worker is gone.
    """

    kind: Literal["arm"] = "arm"
    provider: Name
    arm: Name | None = None
    slot: Name
    state: Literal["open", "closed"]
    reason: Note | None = None
    since: Moment
    retry_at: Moment | None = None
    valid_until: Moment

    @property
    def key(self) -> str:
        """The record's key; `provider//slot` for a whole provider."""
        return f"{self.provider}/{self.arm or ''}/{self.slot}"


class WorkerSpend(Event):
    """What one worker has spent since the start of an hour or day, under its cap on spending.

    `mean_usd` is what recent answers of an arm cost on average, of the arms that were paid last.
    """

    kind: Literal["spend"] = "spend"
    provider: Name
    slot: Name
    per: Literal["hour", "day"]
    since: Moment
    spent_usd: Usd
    mean_usd: Annotated[dict[Name, Usd], Field(max_length=1_000)] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """The record's key, which no arm's record can have."""
        return f"spend {self.provider} {self.slot}"
