"""What learns beside the sums, in the learner's own transaction: a policy of River's, or nothing.

Invariant: what a pupil has learned is committed together with the rows, sums and positions of the
batch that taught it, and is only known here once that is done.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection

from metallm_stream.errors import ConfigurationError
from metallm_stream.events import RiverState
from metallm_stream.join import Interaction
from metallm_stream.policy import chooser, is_river
from metallm_stream.settings import Settings

Pairs = Iterable[tuple[Interaction | None, Interaction | None]]


@dataclass(frozen=True)
class PupilState:
    """A state, whole and in `parts` for records, and what describes it but for its version."""

    state: bytes
    parts: Sequence[bytes]
    head: RiverState

    @property
    def lessons(self) -> int:
        """How many lessons it holds."""
        return self.head.lessons


class Pupil(Protocol):
    """Learns from what a batch has changed."""

    @property
    def learned(self) -> PupilState | None:
        """What is committed and to be published; None if there is nothing of the kind."""

    def claim(self, conn: Connection) -> None:
        """Go on from what is stored. Raises `ConfigurationError` if that is another's."""

    def learn(self, conn: Connection, pairs: Pairs) -> PupilState | None:
        """What is known after the batch, stored but not yet committed."""

    def accept(self, learned: PupilState | None) -> None:
        """Go on from it, now that it is committed."""

    def retain(self, conn: Connection) -> None:
        """Drop the lessons of interactions that are no longer kept."""

    def require_all(self, owned: int, existing: Callable[[], int]) -> None:
        """Raise `ConfigurationError` if so many of the existing partitions are not enough."""


class NoPupil:
    """The sums are all that is learned; see `Pupil`."""

    learned = None

    def claim(self, conn: Connection) -> None:
        """Nothing is stored."""

    def learn(self, conn: Connection, pairs: Pairs) -> None:
        """Nothing is learned."""
        del conn, pairs

    def accept(self, learned: PupilState | None) -> None:
        """Nothing changes."""

    def retain(self, conn: Connection) -> None:
        """Nothing is kept."""

    def require_all(self, owned: int, existing: Callable[[], int]) -> None:
        """Any share of the partitions is fine."""


def open_pupil(settings: Settings, encoder: str, dimensions: int) -> Pupil:
    """What the settings want taught. River is loaded for a policy of its own alone."""
    if not is_river(settings.router.policy):
        chooser(settings.router.policy)  # a name of River's that is misspelt must not pass for none
        return NoPupil()
    module = importlib.import_module("metallm_stream.serve.river")
    pupil: Pupil = module.open_river_pupil(settings, encoder, dimensions)
    return pupil


def refuse_second(policy: str, slot: str, owner: str) -> ConfigurationError:
    """Why a learner of another slot may not teach the policy."""
    return ConfigurationError(
        f"METALLM_SLOT={slot}: policy {policy} (METALLM_ROUTER__POLICY) is taught by one learner, "
        f"that of slot {owner!r}, since it is no sum that several could share: stop this one, or "
        f"start it in the other's place with METALLM_SLOT={owner}, or name a policy of sums"
    )
