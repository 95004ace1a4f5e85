"""The model is a fold: order, repetition, batches, restarts and shards change nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from metallm_stream.encode import context_to_bytes
from metallm_stream.events import Decision, Feedback, Result, Verdict
from metallm_stream.join import Interaction, change
from metallm_stream.policy import Sums, merged
from tests.records import (
    DIMENSIONS,
    ENCODER,
    FAILED,
    REFUSED,
    at,
    attempt,
    decision,
    feedback,
    result,
    verdict,
)

Event = Decision | Result | Feedback | Verdict
SAME = 1e-9

IDS = st.sampled_from(["a", "b", "c"])
ARMS = st.sampled_from(["mini", "maxi"])
SECONDS = st.integers(0, 4)
CONTEXTS = st.sampled_from([[0.6, 0.8], [1.0, 0.0], [-0.8, 0.6]]).map(context_to_bytes)

CHOSEN = st.builds(
    decision,
    IDS,
    arm=ARMS,
    decided_at=SECONDS.map(at),
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
    decided_at=SECONDS.map(at),
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
    finished_at=SECONDS.map(at),
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
    finished_at=SECONDS.map(at),
)
EVENTS = st.lists(
    st.one_of(CHOSEN, CHOSEN, REFUSALS, RESULTS, RESULTS, FEEDBACK, FEEDBACK, VERDICTS, VERDICTS)
)


class Fold:
    """A learner without servers: interactions, and the sums that they add up to."""

    def __init__(self) -> None:
        self.known: dict[str, Interaction] = {}
        self.sums = Sums(DIMENSIONS)

    def take(self, batch: Iterable[Event]) -> None:
        """One transaction."""
        after: dict[str, Interaction] = {}
        for event in batch:
            held = after.get(event.query_id) or self.known.get(event.query_id)
            after[event.query_id] = (held or Interaction(event.query_id)).merged(event)
        pairs = [(self.known.get(query_id), now) for query_id, now in after.items()]
        self.sums.merge(change(pairs, ENCODER, DIMENSIONS))
        self.known |= after

    def restarted(self) -> Fold:
        """What another process reads back from the stored rows and sums."""
        again = Fold()
        again.known = dict(self.known)
        for arm in self.sums.arms:
            again.sums.add_from_bytes(arm, self.sums.arm_to_bytes(arm))
        return again


def folded(events: Sequence[Event]) -> Fold:
    fold = Fold()
    fold.take(events)
    return fold


def assert_same(one: Fold, other: Fold) -> None:
    assert one.known == other.known
    assert one.sums.difference(other.sums) <= SAME


@settings(deadline=None)
@given(events=EVENTS, again=st.lists(st.integers(0)), order=st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing(events, again, order) -> None:
    """Across topics and within one, at-least-once and in any order."""
    repeated = events + [events[choice % len(events)] for choice in again if events]
    order.shuffle(repeated)
    assert_same(folded(repeated), folded(events))


@settings(deadline=None)
@given(events=EVENTS, cuts=st.lists(st.integers(0, 20), max_size=5))
def test_batches_change_nothing(events, cuts) -> None:
    """One transaction for all, one for each, or anything between."""
    places = sorted({min(cut, len(events)) for cut in cuts} | {0, len(events)})
    fold = Fold()
    for start, end in pairwise(places):
        fold.take(events[start:end])
    assert_same(fold, folded(events))


@settings(max_examples=50, deadline=None)
@given(events=EVENTS)
def test_a_restart_at_any_point_changes_nothing(events) -> None:
    """Fold a prefix, snapshot, restore, fold the rest: for every prefix."""
    whole = folded(events)
    for cut in range(len(events) + 1):
        resumed = folded(events[:cut]).restarted()
        resumed.take(events[cut:])
        assert_same(resumed, whole)


@settings(deadline=None)
@given(events=EVENTS, owners=st.lists(st.integers(0, 2), min_size=3, max_size=3))
def test_shards_add_up_to_the_whole(events, owners) -> None:
    """However the changes are spread over learners, the model is the sum of theirs."""
    known: dict[str, Interaction] = {}
    shards: dict[int, Sums] = defaultdict(lambda: Sums(DIMENSIONS))
    for number, event in enumerate(events):
        before = known.get(event.query_id)
        after = (before or Interaction(event.query_id)).merged(event)
        known[event.query_id] = after
        shards[owners[number % 3]].merge(change([(before, after)], ENCODER, DIMENSIONS))
    whole = merged(shards.values(), DIMENSIONS)
    assert whole.difference(folded(events).sums) <= SAME


@settings(deadline=None)
@given(
    answers=st.lists(st.tuples(CHOSEN, st.sampled_from(["yes", "no"])), max_size=8),
    final=st.lists(JUDGEMENTS, min_size=8, max_size=8),
)
def test_corrections_and_withdrawals_are_exact(answers, final) -> None:
    """The model equals the one that saw only the final labels."""
    corrected, direct = Fold(), Fold()
    for number, ((chosen, first), last) in enumerate(zip(answers, final, strict=False)):
        query_id = f"q{number}"
        made = chosen.model_copy(update={"query_id": query_id})
        answered = result(query_id, chosen.arm)
        judged = feedback(query_id, given=20, **last)
        corrected.take([made, answered, feedback(query_id, first, given=10)])
        corrected.take([judged])
        direct.take([made, answered, judged])
    assert corrected.sums.difference(direct.sums) <= SAME


@settings(deadline=None)
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


@settings(deadline=None)
@given(events=EVENTS)
def test_the_sums_are_those_of_the_interactions_alone(events) -> None:
    """A rebuild from the stored rows finds what the live learner has."""
    fold = Fold()
    for event in events:
        fold.take([event])
    rebuilt = change(((None, item) for item in fold.known.values()), ENCODER, DIMENSIONS)
    assert fold.sums.difference(rebuilt) <= SAME
