"""The state of a River policy computed anew from its lessons, beside the live one or in its place.

Invariant: live state = base + the kept lessons as they were learned, in order. Putting corrections
into force fences the learner first, so that no lesson comes between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from metallm_stream.errors import ConfigurationError
from metallm_stream.join import Interaction, Reward, Rewards
from metallm_stream.kafka import Connection, TopicNames
from metallm_stream.policy.river_policy import RiverPolicy
from metallm_stream.policy.river_state import difference, from_bytes, learn
from metallm_stream.postgres import (
    RiverRow,
    StoredLesson,
    claim_slot,
    load_lessons,
    load_offsets,
    load_river,
    lock_river,
    replace_river,
    snapshot,
)
from metallm_stream.serve.rebuild import read_log
from metallm_stream.serve.river import fresh_row, require_stored, taught


@dataclass(frozen=True)
class RebuiltRiver:
    """How far the live state is from its lessons, and what the lessons have become since."""

    lessons: int
    corrections: int
    difference: float


def rebuild_river(
    engine: Engine, policy: RiverPolicy, encoder: str, dimensions: int
) -> RebuiltRiver:
    """Fold the kept lessons as they were learned.

    Raises `ConfigurationError` if no such policy is stored.
    """
    with snapshot(engine) as conn:
        row, lessons = _required(load_river(conn), policy, encoder), load_lessons(conn)
    return _compared(policy, row, lessons, [item.learned for item in lessons], dimensions)


def rebuild_river_from_log(
    engine: Engine,
    connection: Connection,
    names: TopicNames,
    policy: RiverPolicy,
    rewards: Rewards,
    encoder: str,
    dimensions: int,
) -> RebuiltRiver:
    """Fold what the topics say of each lesson, in the order in which the lessons were learned.

    A lesson that was corrected since counts as it was learned, which the topics do not tell.
    Raises `ConfigurationError` if the topics no longer reach back to their first record, or
    retention has dropped lessons.
    """
    with snapshot(engine) as conn:
        row, lessons = _required(load_river(conn), policy, encoder), load_lessons(conn)
        offsets = load_offsets(conn)
    if row.base_lessons:
        raise ConfigurationError(
            f"the order of the first {row.base_lessons} lessons was dropped by retention: "
            "run `metallm rebuild` without --from-log"
        )
    joined = read_log(connection, names, offsets, encoder, dimensions)
    said = [_said(item, joined, rewards, encoder) for item in lessons]
    return _compared(policy, row, lessons, said, dimensions)


def apply_corrections(
    engine: Engine, policy: RiverPolicy, encoder: str, dimensions: int
) -> RebuiltRiver:
    """Teach the policy all kept lessons as they are now, in the place of the live state.

    A policy that is not the stored one begins with the kept lessons; the stored one with its base.
    Tells how far the state has moved; infinite for another policy.
    """
    with engine.begin() as conn:
        stored = load_river(conn)
        if stored is None:
            raise _nothing(policy)
        claim_slot(conn, stored.slot)  # waits for the learner's transaction, and fences the next
        before, lessons = lock_river(conn) or stored, load_lessons(conn)
        fresh = fresh_row(policy, before.slot, encoder, dimensions)
        start = before if _identity(before) == _identity(fresh) else fresh
        current = [item.now if item.is_corrected else item.learned for item in lessons]
        known = [item for item in current if item is not None]
        state = learn(policy, start.base, taught(known, dimensions))
        replace_river(conn, replace(start, state=state))
    moved = float("inf")
    if start is before:
        moved = difference(from_bytes(policy, state), from_bytes(policy, before.state))
    return RebuiltRiver(len(known), sum(item.is_corrected for item in lessons), moved)


def _required(row: RiverRow | None, policy: RiverPolicy, encoder: str) -> RiverRow:
    if row is None:
        raise _nothing(policy)
    if row.encoder != encoder:
        raise ConfigurationError(
            f"policy {row.policy} was taught with encoder {row.encoder!r}, the settings name "
            f"{encoder!r}: set the former"
        )
    require_stored(policy, row)
    return row


def _identity(row: RiverRow) -> tuple[str, str, str, str]:
    return row.policy, row.parameters, row.river_version, row.encoder


def _said(
    item: StoredLesson, joined: Mapping[str, Interaction], rewards: Rewards, encoder: str
) -> Reward:
    if item.is_corrected:
        return item.learned
    reward = rewards.of(joined.get(item.query_id), encoder)
    if reward is None:
        raise ConfigurationError(f"the topics do not tell lesson {item.number}, {item.query_id!r}")
    return reward


def _compared(
    policy: RiverPolicy,
    row: RiverRow,
    lessons: Sequence[StoredLesson],
    rewards: Sequence[Reward],
    dimensions: int,
) -> RebuiltRiver:
    folded = learn(policy, row.base, taught(rewards, dimensions))
    apart = difference(from_bytes(policy, row.state), from_bytes(policy, folded))
    return RebuiltRiver(len(lessons), sum(item.is_corrected for item in lessons), apart)


def _nothing(policy: RiverPolicy) -> ConfigurationError:
    return ConfigurationError(
        f"policy {policy.name} was not taught yet: start a learner with METALLM_ROUTER__POLICY="
        f"{policy.name}"
    )
