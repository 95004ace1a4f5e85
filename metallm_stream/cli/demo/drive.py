"""The stream itself: the users act until the learner has learned all that they did.

Invariant: the drive ends only when PostgreSQL says that every decision, result and judgement has
been learned, or with an error that says what is missing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

from sqlalchemy import Engine, text

from metallm_stream.cli.demo.recording import Recording
from metallm_stream.cli.demo.schedule import Schedule
from metallm_stream.cli.demo.stage import Stage
from metallm_stream.cli.demo.users import Users
from metallm_stream.errors import MetallmError

LOOK_EVERY_S = 0.5
PATIENCE_S = 45.0

LEARNED = text(
    "SELECT count(decision) AS decisions, count(result) AS results, count(quality) AS labelled, "
    "(SELECT coalesce(sum(next_offset), 0)::bigint FROM metallm.offsets WHERE topic = :feedback) "
    "AS feedback, "
    "coalesce((SELECT observations FROM metallm.policies ORDER BY version DESC LIMIT 1), 0) "
    "AS published, "
    "coalesce((SELECT max(version) FROM metallm.policies), 0) AS policy_version "
    "FROM metallm.interactions"
)


class DemoFailed(MetallmError):
    """The demo did not show what it should; the message says what and where to look."""


@dataclass(frozen=True)
class Learned:
    """What the learner has learned, as PostgreSQL has it."""

    decisions: int = 0
    results: int = 0
    labelled: int = 0
    feedback: int = 0
    published: float = 0.0
    policy_version: int = 0


@dataclass(frozen=True)
class Seen:
    """How far the stream is."""

    seconds: float
    asked: int
    answered: int
    labels_given: int
    learned: Learned
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Driven:
    """How it went.

    Attributes
    ----------
    stream_s
        Seconds from the first query until all was learned.
    drain_s
        Of them, those after the last query.
    restarts
        How often a process ended and was started again.
    """

    stream_s: float
    drain_s: float
    restarts: int


def drive(
    stage: Stage,
    recording: Recording,
    plan: Schedule,
    rate: float,
    show: Callable[[Seen], None],
) -> Driven:
    """Let the users act until all is learned.

    Raises
    ------
    DemoFailed
        When nothing new has been answered or learned for 45 s.
    """
    with closing(Users(stage.kafka, stage.names, recording, plan, rate)) as users:
        began_s = time.monotonic()
        asked_s = _until_learned(stage, users, show, began_s)
        ended_s = time.monotonic()
    return Driven(ended_s - began_s, ended_s - asked_s, stage.services.restarts)


def _until_learned(
    stage: Stage, users: Users, show: Callable[[Seen], None], began_s: float
) -> float:
    """Let the users act; returns when the last query was asked, on the monotonic clock."""
    asked_s = moved_s = looked_s = began_s
    learned = Learned()
    while not (users.is_done and _is_learned(users, learned)):
        before = (users.asked, users.answered, learned)
        users.step(round(learned.published))
        now_s = time.monotonic()
        if now_s - looked_s >= LOOK_EVERY_S:
            learned, looked_s = _look(stage.engine, stage.names.feedback), now_s
            show(_seen(users, learned, now_s - began_s))
        asked_s = now_s if users.asked != before[0] else asked_s
        moved_s = now_s if (users.asked, users.answered, learned) != before else moved_s
        if now_s - moved_s > PATIENCE_S:
            raise DemoFailed(_stalled(stage, users, learned))
    return asked_s


def _look(engine: Engine, feedback_topic: str) -> Learned:
    with engine.connect() as conn:
        row = conn.execute(LEARNED, {"feedback": feedback_topic}).mappings().one()
    return Learned(**row)


def _is_learned(users: Users, learned: Learned) -> bool:
    everything = (users.asked, users.asked, users.labelled, users.feedback_sent, users.labelled)
    seen = (learned.decisions, learned.results, learned.labelled, learned.feedback)
    return everything == (*seen, round(learned.published))


def _seen(users: Users, learned: Learned, seconds: float) -> Seen:
    counts = Counter(users.recent_arms)
    shares = {arm or "(failed)": count / counts.total() for arm, count in counts.items()}
    return Seen(seconds, users.asked, users.answered, users.labelled, learned, shares)


def _stalled(stage: Stage, users: Users, learned: Learned) -> str:
    processes = ", ".join(
        f"{child.name} {'runs' if child.pid else 'does not run'}"
        + (f" (ended with {', '.join(map(str, child.exit_codes))})" if child.exit_codes else "")
        for child in stage.services.children
    )
    return (
        f"nothing has moved for {PATIENCE_S:.0f} s. Asked {users.asked}, answered "
        f"{users.answered}, judged {users.labelled}; learned: {learned.decisions} decisions, "
        f"{learned.results} results, {learned.labelled} labels, {learned.feedback} of "
        f"{users.feedback_sent} feedback records read, {learned.published:.0f} labels in the "
        f"policy. Processes: {processes}. Their logs are in {stage.services.stack.logs}"
    )
