"""Which judgements are watched, and what they are compared with."""

from __future__ import annotations

import pytest

from metallm_stream.events import Candidate
from metallm_stream.join import residuals
from tests.records import ENCODER, at, decision, feedback, joined, result

PREDICTED = (
    Candidate(arm="mini", probability=0.5, quality=0.75),
    Candidate(arm="maxi", probability=0.5, quality=1.5),
    Candidate(arm="new", probability=0.0),
)


def test_the_first_judgement_is_compared_with_what_was_predicted() -> None:
    """Of the arm that answered, with predictions taken as no more than 1."""
    chosen = decision(candidates=PREDICTED)
    for arm, value in (("mini", 0.25), ("maxi", 0.0)):
        whole = joined(chosen, result(arm=arm), feedback())
        found = residuals([(joined(chosen, result(arm=arm)), whole)], ENCODER)
        assert [(item.arm, item.value) for item in found[arm]] == [(arm, pytest.approx(value))]


def test_corrections_and_repetitions_are_not_watched() -> None:
    """They tell of the user, not of the arm."""
    before = joined(decision(candidates=PREDICTED), result(), feedback())
    after = before.merged(feedback(label="no", given=20))
    assert residuals([(before, after), (before, before)], ENCODER) == {}


def test_a_judgement_that_was_withdrawn_is_not_watched_again() -> None:
    """However often a user takes it back and judges anew."""
    judged = joined(decision(candidates=PREDICTED), result(), feedback())
    withdrawn = judged.merged(feedback(label=None, withdrawn=True, given=20))
    again = withdrawn.merged(feedback(label="no", given=30))
    assert withdrawn.judged().quality is None
    assert again.judged().quality == 0.0
    assert residuals([(withdrawn, again)], ENCODER) == {}


def test_a_label_that_came_before_the_answer_is_watched() -> None:
    """It is the first judgement once there is something to judge."""
    early = joined(decision(candidates=PREDICTED), feedback())
    assert list(residuals([(early, early.merged(result()))], ENCODER)) == ["mini"]


def test_what_was_not_predicted_is_not_watched() -> None:
    """No policy yet, a new arm, a failure, another encoder, or no judgement."""
    pairs = [
        (None, joined(decision(), result(), feedback())),
        (None, joined(decision(candidates=PREDICTED), result(arm="new"), feedback())),
        (None, joined(decision(candidates=PREDICTED), result(arm=None), feedback())),
        (None, joined(decision(candidates=PREDICTED, encoder="other"), result(), feedback())),
        (None, joined(decision(candidates=PREDICTED), result())),
        (None, None),
    ]
    assert residuals(pairs, ENCODER) == {}


def test_residuals_come_in_the_order_of_the_decisions() -> None:
    """Whatever order a batch has its queries in."""
    pairs = [
        (
            None,
            joined(
                decision(f"q{second}", candidates=PREDICTED, decided_at=at(second)),
                result(f"q{second}"),
                feedback(f"q{second}"),
            ),
        )
        for second in (3, 1, 2)
    ]
    assert [item.decided_at for item in residuals(pairs, ENCODER)["mini"]] == [at(1), at(2), at(3)]
