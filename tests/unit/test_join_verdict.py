"""A judge model's verdict beside users' feedback: it counts only while there is none."""

from __future__ import annotations

from itertools import permutations

import pytest

from metallm_stream.events import Candidate, Decision, Feedback, Result, Verdict
from metallm_stream.join import Lesson, Rewards, change, lesson, residuals
from tests.records import DIMENSIONS, ENCODER, at, decision, feedback, joined, result, verdict

Event = Decision | Result | Feedback | Verdict
ANSWERED = (decision(), result())


def test_a_verdict_teaches_its_score_with_its_weight() -> None:
    """The sums gain a quarter of an event, and no call."""
    after = joined(*ANSWERED, verdict())
    assert lesson(after, ENCODER) == Lesson("mini", decision().context, 0.5, 0.25)
    sums = change([(joined(*ANSWERED), after)], ENCODER, DIMENSIONS)
    assert sums.observations("mini") == 0.25
    assert sums.gram("mini")[0, -1] == 0.25 * 0.5
    assert not sums.usage("mini").any()


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_a_users_word_is_final_in_any_order(order: tuple[int, ...]) -> None:
    """Once there is a label, the lesson is the label's alone."""
    events = (*ANSWERED, verdict(score=0.9), feedback(label="no"))
    found = lesson(joined(*(events[place] for place in order)), ENCODER)
    assert found == Lesson("mini", decision().context, 0.0, 1.0)


def test_a_withdrawn_judgement_lets_the_verdict_count_again() -> None:
    """Nobody has said anything then."""
    back = Feedback(query_id="q", withdrawn=True, given_at=at(30))
    assert joined(*ANSWERED, verdict(), feedback()).verdict_in_force() is None
    assert joined(*ANSWERED, verdict(), feedback(), back).verdict_in_force() == verdict()


def test_a_label_that_cannot_be_judged_silences_the_verdict() -> None:
    """The user has spoken, and the judge does not speak for him."""
    spoken = joined(*ANSWERED, verdict(), feedback(label="perhaps"))
    assert spoken.judged().problem is not None
    assert lesson(spoken, ENCODER) is None


@pytest.mark.parametrize(
    "events",
    [
        (verdict(),),
        (decision(), verdict()),
        (decision(), result(arm=None), verdict()),
        (decision(), result(arm="maxi"), verdict()),
        (decision(), result(call_id="other"), verdict()),
        (*ANSWERED, verdict(call_id="other")),
        (*ANSWERED, verdict(score=None)),
        (*ANSWERED, verdict(weight=0.0)),
        (decision(encoder="other-2"), result(), verdict()),
    ],
    ids=(
        "alone", "no result", "a failure", "another arm", "another result", "another call",
        "no score", "no weight", "another encoder",
    ),
)  # fmt: skip
def test_what_was_not_judged_is_not_learned(events: tuple[Event, ...]) -> None:
    """A verdict counts for the decision and the answer in force, and only with a score."""
    assert lesson(joined(*events), ENCODER) is None


def test_the_newest_score_is_kept() -> None:
    """A later failure, such as of a judge that is down, does not erase it."""
    first, second = verdict(), verdict(score=0.9, finished_at=at(7))
    failed = verdict(score=None, finished_at=at(9))
    for order in permutations((first, second, failed)):
        assert joined(*order).verdict == second
    assert joined(failed).verdict == failed
    assert (whole := joined(second)).merged(second) is whole


def test_verdicts_are_not_watched_for_drift() -> None:
    """Else a judge that is stricter than users would look like an arm that fell."""
    seen = decision(candidates=(Candidate(arm="mini", probability=0.5, quality=0.75),))
    before, judged = joined(seen, result()), joined(seen, result(), verdict())
    labelled = judged.merged(feedback())
    assert residuals([(before, judged)], ENCODER) == {}
    (watched,) = residuals([(judged, labelled)], ENCODER)["mini"]
    assert watched.value == 0.25


def test_verdicts_are_no_rewards() -> None:
    """A policy of River's could not unlearn one when a user's word comes."""
    rewards = Rewards(cost_weight=0.0, latency_weight=0.0, latency_scale_s=1.0)
    judged = joined(*ANSWERED, verdict())
    assert rewards.of(judged, ENCODER) is None
    assert rewards.of(judged.merged(feedback()), ENCODER) is not None
