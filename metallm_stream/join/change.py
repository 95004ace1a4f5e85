"""What an interaction adds to the sums, and so what a change of interactions changes in them.

Invariant: the model is the sum of the contributions of all interactions. A batch of changes adds
`contribution(after) − contribution(before)`, which makes duplicates free and corrections exact.
What a contribution weighs depends on the arm and the time of the decision alone, never on when
its records came or were corrected.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from metallm_stream.encode import context_from_bytes, contexts_from_bytes
from metallm_stream.events import Attempt, Decision, Result
from metallm_stream.join.interaction import Interaction
from metallm_stream.policy import NOTHING_FORGOTTEN, Forgetting, Sums, usage_row

# Failures that may be the query's own fault. If they are, nobody answers it, whoever is asked.
_OF_QUERIES = {"bad_request", "unsupported", "context_too_long", "refused"}
# Nor does anybody answer within this part of what the fastest arm was expected to take.
_NO_TIME = 0.2


@dataclass(frozen=True, slots=True)
class Lesson:
    """One judged answer: quality in [0, 1] of `arm` in a context of raw float32 bytes.

    `weight` is 1 for a user's judgement, and what the verdict says for a judge model's.
    """

    arm: str
    context: bytes
    quality: float
    weight: float = 1.0


def users_lesson(interaction: Interaction, encoder: str) -> Lesson | None:
    """What a user's judgement teaches about quality, or None.

    Failures teach nothing about quality: they are counted among the arm's usage. A decision that
    was made with another encoder teaches nothing, since its context means something else.
    """
    decision, result = interaction.decision, interaction.result
    if decision is None or result is None or result.arm is None or decision.encoder != encoder:
        return None
    value = interaction.judged().quality
    return None if value is None else Lesson(result.arm, decision.context, value)


def lesson(interaction: Interaction, encoder: str) -> Lesson | None:
    """What the interaction teaches about quality: a user's judgement, or a verdict in force."""
    decision, verdict = interaction.decision, interaction.verdict_in_force()
    if verdict is None or verdict.score is None or decision is None:
        return users_lesson(interaction, encoder)
    if decision.encoder != encoder:
        return None
    return Lesson(verdict.arm, decision.context, verdict.score, verdict.weight)


def moment(interaction: Interaction) -> datetime | None:
    """The time by which an interaction is weighed: its decision's, or else its result's."""
    if interaction.decision is not None:
        return interaction.decision.decided_at
    return None if interaction.result is None else interaction.result.finished_at


def change(
    pairs: Iterable[tuple[Interaction | None, Interaction | None]],
    encoder: str,
    dimensions: int,
    forgetting: Forgetting = NOTHING_FORGOTTEN,
) -> Sums:
    """The change of the sums when each `before` becomes its `after`."""
    lessons: dict[str, list[tuple[Lesson, float, float]]] = defaultdict(list)
    calls: dict[str, list[tuple[list[float], float, float]]] = defaultdict(list)
    for before, after in pairs:
        old, new = (_weighed_lesson(item, encoder, forgetting) for item in (before, after))
        if old != new:
            for item, sign in ((old, -1.0), (new, 1.0)):
                if item is not None:
                    lessons[item[0].arm].append((*item, sign * item[0].weight))
        was, tried = _weighed_calls(before, forgetting), _weighed_calls(after, forgetting)
        if was != tried:
            for own, sign in ((was, -1.0), (tried, 1.0)):
                for attempt, scale in zip(own.attempts, own.scales, strict=True):
                    row = _usage_row(attempt, own.prompt_characters)
                    calls[attempt.arm].append((row, scale, sign))
    return _added(lessons, calls, dimensions)


def _added(
    lessons: Mapping[str, Sequence[tuple[Lesson, float, float]]],
    calls: Mapping[str, Sequence[tuple[list[float], float, float]]],
    dimensions: int,
) -> Sums:
    """Sums of each arm's lessons and usage, which come with their scale and signed weight."""
    sums = Sums(dimensions)
    for arm, tried in calls.items():
        rows, scales, signs = (np.array(column) for column in zip(*tried, strict=True))
        sums.add_usage(arm, rows * signs[:, None], scales)
    for arm, weighed in lessons.items():
        learned, scale, weight = zip(*weighed, strict=True)
        contexts = contexts_from_bytes([item.context for item in learned], dimensions)
        sums.add_quality(arm, contexts, [item.quality for item in learned], weight, scale)
    return sums


def check_context(decision: Decision, encoder: str, dimensions: int) -> None:
    """Raises `InvalidEvent` if a decision made with `encoder` has no valid context."""
    if decision.encoder == encoder:
        context_from_bytes(decision.context, dimensions)


def _weighed_lesson(
    interaction: Interaction | None, encoder: str, forgetting: Forgetting
) -> tuple[Lesson, float] | None:
    """The lesson, and the binary logarithm of what it weighs."""
    found = None if interaction is None else lesson(interaction, encoder)
    if interaction is None or interaction.decision is None or found is None:
        return None
    return found, forgetting.log2_weight(found.arm, interaction.decision.decided_at)


@dataclass(frozen=True, slots=True)
class _Calls:
    """One query's attempts that tell of their arms, and the logarithms of what they weigh."""

    attempts: tuple[Attempt, ...] = ()
    prompt_characters: int | None = None
    scales: tuple[float, ...] = ()


_NO_CALLS = _Calls()


def _weighed_calls(interaction: Interaction | None, forgetting: Forgetting) -> _Calls:
    if interaction is None or interaction.result is None:
        return _NO_CALLS
    decision, result = interaction.decision, interaction.result
    at = moment(interaction) or result.finished_at
    untold = {"superseded"} | (_OF_QUERIES if _asked_all(decision, result) else set())
    attempts = [one for one in result.attempts if _counts(one, untold, decision)]
    return _Calls(
        tuple(attempts),
        None if decision is None else decision.prompt_characters,
        tuple([forgetting.log2_weight(attempt.arm, at) for attempt in attempts]),
    )


def _counts(attempt: Attempt, untold: set[str], decision: Decision | None) -> bool:
    """Whether a try tells of its arm: an answer does, and a failure that is the arm's own."""
    failure = attempt.failure
    if failure is None:
        return True
    if attempt.probe or failure.kind in untold:
        return False
    return failure.kind != "deadline" or attempt.latency_s >= _least_s(decision)


def _asked_all(decision: Decision | None, result: Result) -> bool:
    """Whether nobody answered, and no arm was left unasked since the tries were used up."""
    if result.arm is not None:
        return False
    asked = {one.arm for one in result.attempts} | {one.arm for one in result.skipped}
    return decision is None or asked.issuperset([one.arm for one in decision.candidates])


def _least_s(decision: Decision | None) -> float:
    """The time that any arm needs to answer, as far as known."""
    candidates = () if decision is None else decision.candidates
    known = [one.latency_s for one in candidates if one.latency_s is not None]
    return _NO_TIME * min(known, default=0.0)


def _usage_row(attempt: Attempt, prompt_characters: int | None) -> list[float]:
    return usage_row(
        failed=attempt.failure is not None,
        cost_usd=attempt.cost_usd,
        input_tokens=attempt.input_tokens,
        output_tokens=attempt.output_tokens,
        latency_s=attempt.latency_s,
        prompt_characters=prompt_characters,
    )
