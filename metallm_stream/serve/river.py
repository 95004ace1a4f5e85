"""A policy of River's in the service: how it is opened, taught, stored and read back.

Invariant: the state is the fold of its lessons in the order of their numbers. A batch teaches in
the order in which its queries' ids sort, each complete interaction once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import numpy as np
from sqlalchemy import Connection

from metallm_stream.encode import context_from_bytes
from metallm_stream.errors import ConfigurationError
from metallm_stream.events import RiverState
from metallm_stream.join import Reward, Rewards
from metallm_stream.policy import Chooser
from metallm_stream.policy.detectors import river_version
from metallm_stream.policy.river_policy import RiverPolicy, river_policy
from metallm_stream.policy.river_rule import RiverRule
from metallm_stream.policy.river_state import (
    Taught,
    digest,
    from_bytes,
    learn,
    nothing_learned,
    split,
)
from metallm_stream.postgres import (
    RiverRow,
    claim_river,
    correct_lessons,
    forgotten_lessons,
    lock_river,
    rebase_river,
    save_lessons,
    save_river,
    split_lessons,
)
from metallm_stream.serve.pupil import Pairs, PupilState, refuse_second
from metallm_stream.settings import Settings

log = logging.getLogger(__name__)


class RiverPupil:
    """Teaches one River policy; see `Pupil`.

    Parameters
    ----------
    policy, rewards
        What is taught, and what an interaction is worth to it.
    slot
        Which learner this is.
    encoder, dimensions
        Whose contexts it learns from.

    """

    def __init__(
        self, policy: RiverPolicy, rewards: Rewards, *, slot: str, encoder: str, dimensions: int
    ) -> None:
        self._policy = policy
        self._rewards = rewards
        self._slot = slot
        self._encoder = encoder
        self._dimensions = dimensions
        self._start = fresh_row(policy, slot, encoder, dimensions)
        self.learned: PupilState | None = None

    def claim(self, conn: Connection) -> None:
        """Go on from the stored state, or begin one.

        Raises `ConfigurationError` if it is another slot's or another policy's.
        """
        row = claim_river(conn, self._start)
        if row.slot != self._slot:
            raise refuse_second(self._policy.name, self._slot, row.slot)
        require_stored(self._policy, row)
        from_bytes(self._policy, row.state)
        self.learned = self._described(row.state, row.lessons)

    def learn(self, conn: Connection, pairs: Pairs) -> PupilState | None:
        """Teach what is complete now, and note what has become of earlier lessons."""
        changed = {}
        for before, after in pairs:
            old, new = (self._rewards.of(item, self._encoder) for item in (before, after))
            if after is not None and old != new:
                changed[after.query_id] = new
        lessons, corrections = split_lessons(conn, dict(sorted(changed.items())))
        correct_lessons(conn, corrections)
        if not lessons or self.learned is None:
            return self.learned
        save_lessons(conn, self.learned.lessons, lessons)
        state = learn(self._policy, self.learned.state, taught(lessons.values(), self._dimensions))
        learned = self._described(state, self.learned.lessons + len(lessons))
        save_river(conn, learned.state, learned.lessons)
        return learned

    def accept(self, learned: PupilState | None) -> None:
        """Go on from what is committed."""
        self.learned = learned

    def retain(self, conn: Connection) -> None:
        """Move the base behind the lessons that are no longer kept."""
        row, old = lock_river(conn), forgotten_lessons(conn)
        if row is None or not old:
            return
        lost = sum(item.is_corrected for item in old)
        if lost:
            log.warning("%d corrections are no longer kept and count as first learned", lost)
        lessons = taught((item.learned for item in old), self._dimensions)
        rebase_river(conn, learn(self._policy, row.base, lessons), old[-1].number)

    def require_all(self, owned: int, existing: Callable[[], int]) -> None:
        """Raise `ConfigurationError` unless this learner reads every partition."""
        wanted = existing()
        if owned < wanted:
            raise ConfigurationError(
                f"METALLM_SLOT={self._slot}: policy {self._policy.name} (METALLM_ROUTER__POLICY) "
                f"is taught by one learner, which must read every partition, but other learners "
                f"read {wanted - owned} of {wanted}: stop them, or name a policy of sums"
            )

    def _described(self, state: bytes, lessons: int) -> PupilState:
        parts = split(state)
        head = RiverState(
            policy=self._policy.name,
            parameters=self._policy.signature(),
            river_version=river_version(),
            version=1,
            lessons=lessons,
            parts=len(parts),
            sha256=digest(state),
        )
        return PupilState(state, parts, head)


def fresh_row(policy: RiverPolicy, slot: str, encoder: str, dimensions: int) -> RiverRow:
    """What is stored of a policy that has learned nothing, once it was tried."""
    state = nothing_learned(policy, dimensions)
    name, parameters = policy.name, policy.signature()
    return RiverRow(slot, name, parameters, river_version(), encoder, 0, state, 0, state)


def require_stored(policy: RiverPolicy, row: RiverRow) -> None:
    """Raise `ConfigurationError` if what is stored is the state of another policy."""
    policy.require(
        row.policy,
        row.parameters,
        row.river_version,
        whose="the state in the database",
        remedy="run `metallm rebuild --apply`, which teaches this one what is still kept",
    )


def taught(rewards: Iterable[Reward], dimensions: int) -> list[Taught]:
    """Rewards as lessons of the policy."""
    return [
        Taught(item.arm, context_from_bytes(item.context, dimensions), item.reward)
        for item in rewards
    ]


def open_river_pupil(settings: Settings, encoder: str, dimensions: int) -> RiverPupil:
    """The pupil that the settings name."""
    return RiverPupil(
        policy_of(settings),
        Rewards(**settings.objective.model_dump()),
        slot=settings.slot,
        encoder=encoder,
        dimensions=dimensions,
    )


def open_river_rule(settings: Settings) -> Chooser:
    """The rule of choice that the settings name."""
    # A child of the router's generator: no number that the policy draws by decides again.
    rng = np.random.default_rng(settings.router.seed).spawn(1)[0]
    return RiverRule(policy_of(settings), settings.router.floor, rng)


def policy_of(settings: Settings) -> RiverPolicy:
    """The policy that the settings name; raises `ConfigurationError`."""
    return river_policy(settings.router.policy, settings.router.policy_parameters)
