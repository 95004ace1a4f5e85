"""The model is a fold: order, repetition, batches, restarts and shards change nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metallm_stream.encode import context_to_bytes
from metallm_stream.events import Decision, Feedback, Result, Verdict
from metallm_stream.join import Interaction, change, lesson, moment
from metallm_stream.policy import (
    NOTHING_FORGOTTEN,
    Forgetting,
    HalfLife,
    Shift,
    Sums,
    Usage,
    merged,
)
from tests.records import (
    DIMENSIONS,
    ENCODER,
    FAILED,
    REFUSED,
    START,
    at,
    attempt,
    decision,
    feedback,
    result,
    verdict,
)

Event = Decision | Result | Feedback | Verdict
SAME = 1e-9
YEAR_S = 365 * 86_400

IDS = st.sampled_from(["a", "b", "c"])
ARMS = st.sampled_from(["mini", "maxi"])
SECONDS = st.integers(0, 4)
TIMES = st.one_of(st.integers(0, 7_200), st.integers(-YEAR_S, 5 * YEAR_S)).map(at)
CONTEXTS = st.sampled_from([[0.6, 0.8], [1.0, 0.0], [-0.8, 0.6]]).map(context_to_bytes)

CHOSEN = st.builds(
    decision,
    IDS,
    arm=ARMS,
    decided_at=TIMES,
    query_offset=st.integers(0, 2),
    context=CONTEXTS,
    encoder=st.sampled_from([ENCODER, ENCODER, "other-2"]),
    labels=st.sampled_from([("yes", "no"), None]),
)
REFUSALS = st.builds(
    decision,
    IDS,
    arm=st.none(),
    propensity=st.none(),
    refusal=st.just(REFUSED),
    decided_at=TIMES,
)
ATTEMPTS = st.builds(
    attempt,
    ARMS,
    failure=st.sampled_from([None, FAILED]),
    cost_usd=st.sampled_from([None, 0.001, 0.25]),
    input_tokens=st.sampled_from([None, 7]),
)
RESULTS = st.builds(
    result,
    IDS,
    st.sampled_from(["mini", "maxi", None]),
    attempts=st.lists(ATTEMPTS, max_size=3).map(tuple),
    finished_at=TIMES,
)
JUDGEMENTS = st.one_of(
    st.builds(dict, label=st.sampled_from(["yes", "no", "perhaps"])),
    st.builds(dict, label=st.none(), score=st.sampled_from([0.0, 0.3, 1.0])),
    st.just({"label": None, "withdrawn": True}),
)
FEEDBACK = st.builds(
    lambda query_id, given, feedback_id, judgement: feedback(
        query_id, given=given, feedback_id=feedback_id, **judgement
    ),
    IDS,
    SECONDS,
    st.sampled_from([None, "anna", "bert"]),
    JUDGEMENTS,
)
VERDICTS = st.builds(
    verdict,
    IDS,
    st.sampled_from([None, 0.0, 0.7, 1.0]),
    arm=ARMS,
    weight=st.sampled_from([0.0, 0.25, 1.0]),
    finished_at=TIMES,
)
EVENTS = st.lists(
    st.one_of(CHOSEN, CHOSEN, REFUSALS, RESULTS, RESULTS, FEEDBACK, FEEDBACK, VERDICTS, VERDICTS)
)


HALF_LIVES = st.lists(
    st.builds(HalfLife, TIMES, st.sampled_from([None, 60.0, 3_600.0, 86_400.0, 1e9])),
    max_size=3,
    unique_by=lambda row: row.effective_at,
)
AGEING_S = st.sampled_from([1.0, 90.0, 86_400.0, math.inf])
SHIFTS = st.lists(st.builds(Shift, ARMS, TIMES, st.floats(0.01, 1), AGEING_S), max_size=4)
CLOCKS = st.builds(Forgetting, HALF_LIVES, SHIFTS)


class Fold:
    """A learner without servers."""

    def __init__(self, forgetting: Forgetting = NOTHING_FORGOTTEN, shards: int = 1) -> None:
        self.forgetting = forgetting
        self.known: dict[str, Interaction] = {}
        self.shards = [Sums(DIMENSIONS) for _ in range(shards)]

    def take(self, batch: Iterable[Event], shard: int = 0) -> None:
        """One transaction of one learner; it stores its sums and reads them back."""
        after: dict[str, Interaction] = {}
        for event in batch:
            held = after.get(event.query_id) or self.known.get(event.query_id)
            after[event.query_id] = (held or Interaction(event.query_id)).merged(event)
        pairs = [(self.known.get(query_id), now) for query_id, now in after.items()]
        held = self.shards[shard]
        stored = {arm: held.arm_to_bytes(arm) for arm in held.arms}
        restored = Sums.from_bytes(stored, DIMENSIONS)
        restored.merge(change(pairs, ENCODER, DIMENSIONS, self.forgetting))
        self.shards[shard] = restored
        self.known |= after

    @property
    def sums(self) -> Sums:
        """The model."""
        return merged(self.shards, DIMENSIONS)


def folded(events: Sequence[Event], forgetting: Forgetting = NOTHING_FORGOTTEN) -> Fold:
    fold = Fold(forgetting)
    fold.take(events)
    return fold


def assert_same(one: Fold, other: Fold) -> None:
    assert one.known == other.known
    assert one.sums.difference(other.sums) <= SAME


@given(
    events=EVENTS,
    clocks=CLOCKS,
    again=st.lists(st.integers(0)),
    order=st.randoms(use_true_random=False),
)
def test_order_and_repetition_change_nothing(events, clocks, again, order) -> None:
    """Across topics and within one, at-least-once and in any order."""
    repeated = events + [events[choice % len(events)] for choice in again if events]
    order.shuffle(repeated)
    assert_same(folded(repeated, clocks), folded(events, clocks))


@given(
    events=EVENTS,
    clocks=CLOCKS,
    cuts=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2)), max_size=6),
)
def test_batches_restarts_and_shards_change_nothing(events, clocks, cuts) -> None:
    """Each transaction by any of three learners; a rebuild finds the sum of theirs."""
    owners = {min(cut, len(events)): owner for cut, owner in cuts} | {0: 0, len(events): 0}
    fold = Fold(clocks, shards=3)
    for start, end in pairwise(sorted(owners)):
        fold.take(events[start:end], owners[start])
    rebuilt = change(((None, item) for item in fold.known.values()), ENCODER, DIMENSIONS, clocks)
    assert fold.sums.difference(rebuilt) <= SAME
    assert fold.sums.difference(folded(events, clocks).sums) <= SAME


@given(
    answers=st.lists(st.tuples(CHOSEN, st.sampled_from(["yes", "no"])), max_size=8),
    final=st.lists(JUDGEMENTS, min_size=8, max_size=8),
    clocks=CLOCKS,
)
def test_corrections_and_withdrawals_are_exact(answers, final, clocks) -> None:
    """The model equals the one that saw only the final labels."""
    corrected, direct = Fold(clocks), Fold(clocks)
    for number, ((chosen, first), last) in enumerate(zip(answers, final, strict=False)):
        query_id = f"q{number}"
        made = chosen.model_copy(update={"query_id": query_id})
        answered = result(query_id, chosen.arm)
        judged = feedback(query_id, given=20, **last)
        corrected.take([made, answered, feedback(query_id, first, given=10)])
        corrected.take([judged])
        direct.take([made, answered, judged])
    assert corrected.sums.difference(direct.sums) <= SAME


@given(
    events=st.lists(st.one_of(st.just(decision("a")), RESULTS, FEEDBACK, VERDICTS)),
    label=st.sampled_from(["yes", "no", "perhaps"]),
    order=st.randoms(use_true_random=False),
)
def test_a_users_word_leaves_nothing_of_a_verdict(events, label, order) -> None:
    """In any order of verdicts, labels and corrections: the sums are those without the verdicts."""
    last = [feedback(query_id, label, given=20) for query_id in ("a", "b", "c")]
    mixed = [*events, *last]
    order.shuffle(mixed)
    without = [event for event in mixed if not isinstance(event, Verdict)]
    fold = Fold()
    for event in mixed:
        fold.take([event])
    assert fold.sums.difference(folded(without).sums) <= SAME


@given(events=EVENTS, clocks=CLOCKS, read_after_s=st.integers(0, YEAR_S))
def test_a_reader_sees_each_event_at_the_weight_of_its_age(events, clocks, read_after_s) -> None:
    """The same as weighing every interaction afresh at the reader's time."""
    fold = folded(events, clocks)
    now = START + timedelta(seconds=5 * YEAR_S + read_after_s)
    read = fold.sums.as_of(clocks.reading(["mini", "maxi"], now))
    for arm in read.arms:
        clock = clocks.reading([arm], now)[arm]
        observations, calls = 0.0, 0.0
        for item in fold.known.values():
            time = moment(item)
            weight = 0.0 if time is None else np.exp2(clocks.log2_weight(arm, time) - clock)
            taught = lesson(item, ENCODER)
            if taught is not None and taught.arm == arm:
                observations += weight * taught.weight
            tried = () if item.result is None else item.result.attempts
            calls += weight * sum(attempt.arm == arm for attempt in tried)
        assert abs(read.observations(arm) - observations) <= SAME * max(1.0, observations)
        assert abs(read.usage(arm)[Usage.CALLS] - calls) <= SAME * max(1.0, calls)
