"""Decision, result and feedback of one query, joined and turned into a change of the sums."""

from __future__ import annotations

import numpy as np
import pytest

from metallm_stream.encode import context_to_bytes
from metallm_stream.errors import InvalidEvent
from metallm_stream.events import Candidate, Failure, FailureKind, Feedback
from metallm_stream.join import (
    MAX_FEEDBACK,
    Interaction,
    Lesson,
    change,
    check_context,
    lesson,
)
from metallm_stream.policy import Sums, Usage
from tests.records import (
    DIMENSIONS,
    ENCODER,
    FAILED,
    REFUSED,
    at,
    attempt,
    decision,
    feedback,
    joined,
    result,
)


def learned(*pairs: tuple[Interaction | None, Interaction | None]) -> Sums:
    return change(pairs, ENCODER, DIMENSIONS)


def test_an_event_of_another_query_is_a_mistake_of_ours() -> None:
    """Rows are found by query_id; mixing two up must not pass."""
    with pytest.raises(ValueError, match="merged into"):
        joined(result(), decision("other"))


def test_a_try_that_was_broken_off_tells_nothing_of_its_arm() -> None:
    """Another arm was faster; neither a call nor a failure of the slow one is counted."""
    slow = attempt("maxi", failure=Failure(kind="superseded", message="another arm was faster"))
    assert learned((None, joined(result(attempts=(slow, attempt()))))).arms == ("mini",)


def test_a_repetition_gives_the_very_same_interaction() -> None:
    """So that a duplicate costs no write."""
    whole = joined(decision(), result(), feedback())
    for event in (decision(), result(), feedback()):
        assert whole.merged(event) is whole


def test_the_first_decision_and_the_first_result_count() -> None:
    """A query that was decided twice is learned from once."""
    early, late = decision(decided_at=at(0)), decision(decided_at=at(5), arm="maxi")
    assert joined(late, early).decision == joined(early, late).decision == early
    first, second = result(finished_at=at(1)), result(arm="maxi", finished_at=at(6))
    assert joined(second, first).result == joined(first, second).result == first


def test_a_result_of_another_decision_teaches_nothing() -> None:
    """A query decided twice may have the answer of the one and the context of the other."""
    ours = decision()
    theirs = decision(query_offset=ours.query_offset + 1)
    own = joined(ours, result(call_id=ours.call_id), feedback())
    foreign = joined(ours, result(call_id=theirs.call_id), feedback())
    assert lesson(own, ENCODER) is not None
    assert lesson(foreign, ENCODER) is None
    assert foreign.judged().quality is None
    assert "another decision" in (foreign.judged().problem or "")


@pytest.mark.parametrize(
    ("items", "quality"),
    [
        ([feedback(label="yes")], 1.0),
        ([feedback(label="no")], 0.0),
        ([feedback(label=None, score=0.25)], 0.25),
        ([feedback(label="no", given=10), feedback(label="yes", given=20)], 1.0),
        ([feedback(label="no", given=10), feedback(label=None, withdrawn=True, given=20)], None),
        ([feedback(label=None, withdrawn=True, given=5), feedback(label="yes", given=6)], 1.0),
    ],
    ids=["right", "wrong", "score", "corrected", "withdrawn", "given again"],
)
def test_the_newest_judgement_decides(items: list[Feedback], quality: float | None) -> None:
    """In whatever order the records come."""
    for order in (items, items[::-1]):
        assert joined(decision(), result(), *order).judged().quality == quality


def test_each_id_is_corrected_and_withdrawn_on_its_own() -> None:
    """Of two judges who disagree, the one who spoke last decides, unless they take it back."""
    anna = feedback(label="yes", feedback_id="anna", given=10)
    bert = feedback(label="no", feedback_id="bert", given=20)
    back = feedback(label=None, withdrawn=True, feedback_id="bert", given=30)
    assert joined(decision(), result(), anna, bert).judged().quality == 0.0
    assert joined(decision(), result(), anna, bert, back).judged().quality == 1.0
    unnamed = feedback(label=None, withdrawn=True, given=40)
    assert joined(decision(), result(), anna, bert, unnamed).judged().quality == 0.0


def test_feedback_before_the_result_waits() -> None:
    """It is kept, and judged once decision and result are there."""
    waiting = joined(feedback())
    assert waiting.judged().quality is None
    assert waiting.judged().problem is None
    assert waiting.merged(result()).judged().quality is None
    assert waiting.merged(result()).merged(decision()).judged().quality == 1.0


def test_a_label_that_is_none_of_the_labels_is_a_problem_not_a_zero() -> None:
    """Nobody is taught by a typing mistake; the reason is kept for SQL."""
    judged = joined(decision(), result(), feedback(label="perhaps")).judged()
    assert judged.quality is None
    assert "perhaps" in (judged.problem or "")
    assert lesson(joined(decision(), result(), feedback(label="perhaps")), ENCODER) is None


def test_an_answer_that_could_not_be_parsed_is_wrong() -> None:
    """Quality 0 against any label; a score is taken as it is."""
    unread = result(prediction=None)
    assert joined(decision(), unread, feedback()).judged().quality == 0.0
    assert joined(decision(), unread, feedback(label=None, score=0.9)).judged().quality == 0.9


def test_a_failure_has_quality_0_and_teaches_no_arm() -> None:
    """Users got nothing; which arm is to blame is told by the attempts."""
    failed = joined(decision(), result(arm=None), feedback())
    assert failed.judged().quality == 0.0
    assert lesson(failed, ENCODER) is None
    sums = learned((None, failed))
    assert sums.observations("mini") == 0
    assert sums.usage("mini")[[Usage.CALLS, Usage.FAILURES]].tolist() == [1, 1]


@pytest.mark.parametrize("kind", ["bad_request", "unsupported", "context_too_long", "refused"])
def test_a_query_that_nobody_could_answer_is_no_failure_of_its_arms(kind: FailureKind) -> None:
    """Or one user's bad queries would shut an arm out for all; where another answers, it failed."""
    failure = Failure(kind=kind, message="not like this")
    tried = attempt("mini", failure=failure, cost_usd=None)
    assert learned((None, joined(result(arm=None, failure=failure, attempts=(tried,))))).arms == ()
    sums = learned((None, joined(result(arm="maxi", attempts=(tried, attempt("maxi"))))))
    assert sums.usage("mini")[[Usage.CALLS, Usage.FAILURES]].tolist() == [1, 1]


def test_whom_nobody_was_asked_after_has_failed() -> None:
    """Or a host set up wrongly, with as many arms as there are tries, would fail for ever."""
    failure = Failure(kind="unsupported", message="404")
    failed = result(arm=None, failure=failure, attempts=(attempt(failure=failure, cost_usd=None),))
    for last, calls in (("mini", 0), ("maxi", 1)):
        candidates = [Candidate(arm=arm, probability=0.5) for arm in {"mini", last}]
        sums = learned((None, joined(decision(candidates=candidates), failed)))
        assert sums.usage("mini")[[Usage.CALLS, Usage.FAILURES]].tolist() == [calls, calls]


def test_an_outage_that_is_known_is_no_failure_of_its_arm_any_more() -> None:
    """Or probes, which go on for as long, would keep its queries away when it is back."""
    probe = attempt(failure=FAILED, cost_usd=None, probe=True)
    assert learned((None, joined(result(arm=None, attempts=(probe,))))).arms == ()
    sums = learned((None, joined(result(attempts=(attempt(probe=True),)))))
    assert sums.usage("mini")[[Usage.CALLS, Usage.FAILURES]].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("expected_s", "left_s", "failures"),
    [((1.0,), 0.05, 0), ((1.0,), 0.5, 1), ((5.0, 0.1), 0.05, 1), ((None,), 0.05, 1)],
    ids=["too short for all", "short", "long enough for another", "nobody knows"],
)
def test_a_deadline_that_no_arm_could_keep_is_no_failure_of_one(
    expected_s: tuple[float | None, ...], left_s: float, failures: int
) -> None:
    """Or one user in a hurry would shut an arm out for all."""
    candidates = [
        Candidate(arm=f"arm {place}", probability=0.5, latency_s=latency_s)
        for place, latency_s in enumerate(expected_s)
    ]
    late = Failure(kind="deadline", message="no answer in time")
    tried = attempt(failure=late, latency_s=left_s, cost_usd=None)
    failed = joined(decision(candidates=candidates), result(arm=None, attempts=(tried,)))
    assert learned((None, failed)).usage("mini")[Usage.FAILURES] == failures


def test_a_refusal_teaches_nothing() -> None:
    """No arm was chosen, none was called."""
    refused = joined(
        decision(arm=None, propensity=None, refusal=REFUSED),
        result(arm=None, failure=REFUSED, attempts=()),
        feedback(),
    )
    assert learned((None, refused)).arms == ()


def test_the_arm_that_answered_is_taught_in_the_context_of_the_decision() -> None:
    """After a fallback it is not the arm that was decided."""
    attempts = (attempt("mini", failure=FAILED, cost_usd=None), attempt("maxi", cost_usd=0.02))
    fell_back = joined(decision(), result(arm="maxi", attempts=attempts), feedback())
    assert lesson(fell_back, ENCODER) == Lesson("maxi", context_to_bytes([0.6, 0.8]), 1.0)
    sums = learned((None, fell_back))
    assert (sums.observations("mini"), sums.observations("maxi")) == (0, 1)
    assert sums.usage("mini")[[Usage.CALLS, Usage.FAILURES, Usage.COST_CALLS]].tolist() == [1, 1, 0]
    assert sums.usage("maxi")[[Usage.CALLS, Usage.FAILURES, Usage.COST_CALLS]].tolist() == [1, 0, 1]


def test_another_encoders_decision_teaches_usage_only() -> None:
    """Its context means something else, its cost does not."""
    foreign = joined(decision(encoder="other-2"), result(), feedback())
    assert lesson(foreign, ENCODER) is None
    sums = learned((None, foreign))
    assert sums.observations("mini") == 0
    assert sums.usage("mini")[Usage.CALLS] == 1


def test_costs_are_booked_without_any_label_and_without_a_decision() -> None:
    """Spend is known at the result."""
    sums = learned((None, joined(result())))
    assert sums.usage("mini")[Usage.COST_USD] == 0.001


def test_usage_adds_up_by_arm() -> None:
    """Three tries at two arms."""
    tries = (attempt("mini"), attempt("mini", cost_usd=None), attempt("maxi"))
    sums = learned((None, joined(result(attempts=tries))))
    columns = [Usage.CALLS, Usage.COST_CALLS, Usage.COST_USD]
    assert sums.usage("mini")[columns].tolist() == [2, 1, 0.001]
    assert sums.usage("maxi")[Usage.CALLS] == 1


def test_the_length_of_a_prompt_counts_where_the_decision_tells_it() -> None:
    """In any order of arrival: a decision that comes after its result mends what was booked."""
    known = joined(decision(prompt_characters=2_000), result())
    sums = learned((None, joined(result())), (joined(result()), known))
    assert sums.usage("mini")[Usage.LENGTH_CALLS :].tolist() == [1, 2, 4, 0.001, 0.002]
    assert sums.difference(learned((None, known))) < 1e-12


def test_what_does_not_change_does_not_touch_the_sums() -> None:
    """A batch of duplicates changes no arm at all."""
    whole = joined(decision(), result(), feedback())
    again = joined(decision(), result(), feedback(), feedback(given=20))
    assert learned((whole, whole)).arms == ()
    assert learned((whole, again)).arms == ()


def test_a_correction_changes_the_sums_by_the_difference() -> None:
    """From wrong to right: the quality sum rises by one, the count stays."""
    wrong = joined(decision(), result(), feedback(label="no"))
    right = wrong.merged(feedback(label="yes", given=20))
    gram = learned((wrong, right)).gram("mini")
    assert gram[0, 0] == 0
    assert gram[0, -1] == 1
    np.testing.assert_allclose(gram[1:3, -1], [0.6, 0.8], rtol=1e-6)


def test_forgetting_a_query_takes_everything_back() -> None:
    """The change from an interaction to none undoes the change from none to it."""
    whole = joined(decision(), result(), feedback())
    sums = learned((None, whole))
    sums.merge(learned((whole, None)))
    assert sums.difference(Sums(DIMENSIONS)) == 0


def test_only_the_newest_feedback_ids_are_kept() -> None:
    """A query cannot be made to grow without bound."""
    items = [feedback(feedback_id=f"judge-{n}", given=n) for n in range(MAX_FEEDBACK + 5)]
    kept = joined(*items).feedback
    assert list(kept) == items[5:]
    assert joined(*items[::-1]).feedback == kept


def test_feedback_without_a_time_is_refused() -> None:
    """The reader fills in the record's; without one nothing could decide."""
    timeless = Feedback(query_id="q", label="yes")
    with pytest.raises(InvalidEvent, match="given_at"):
        joined(feedback(), timeless)


def test_a_context_of_the_wrong_length_is_refused() -> None:
    """Unless another encoder made it: then it is not read at all."""
    short = context_to_bytes([1.0])
    check_context(decision(), ENCODER, DIMENSIONS)
    check_context(decision(encoder="other-1", context=short), ENCODER, DIMENSIONS)
    with pytest.raises(InvalidEvent, match="context"):
        check_context(decision(context=short), ENCODER, DIMENSIONS)
