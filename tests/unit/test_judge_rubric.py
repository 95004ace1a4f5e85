"""From a case to the judge model's call, and from its answer to the verdict."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Case, Generation, Model
from metallm_stream.judge import prompt, shipped
from metallm_stream.serve.judge import Rubric
from metallm_stream.serve.open_judge import judge_model
from metallm_stream.settings import JudgeSettings
from tests.records import FAILED, START, at, attempt, result

CASE = Case(query_id="q", call_id="c", arm="mini", model="m", question="Why?", answer="So.")
RUBRIC = Rubric(
    model=Model(arm="judge:big", provider="vendor", model="big"),
    template=shipped().by_kind["verdict"].model_copy(update={"system": "Be just."}),
    generation=Generation(max_output_tokens=50),
    weight=0.25,
)
NAMED = {"provider": "vendor", "model": "big", "spend_cap_usd": 1.0}


def test_the_call_is_the_templates_prompt_to_the_judge_alone() -> None:
    """With a call_id of its own, the same after a crash: the idempotency key follows from it."""
    call = RUBRIC.call(CASE, START)
    system, user = prompt(call.query)
    assert system == {"role": "system", "content": "Be just."}
    assert "Why?" in user["content"]
    assert [model.model for model in call.ranking] == ["big"]
    assert call.call_id != "c"
    assert call.call_id == RUBRIC.call(CASE, at(9)).call_id
    assert call.query.generation == Generation(max_output_tokens=50)


def test_a_verdict_has_score_words_and_what_they_cost() -> None:
    """Of the judged arm, by the judge; tries that failed are paid by the judge, too."""
    tries = (attempt("judge:big", failure=FAILED, cost_usd=0.5), attempt("judge:big", cost_usd=1.0))
    said = result(
        arm="judge:big", text="Fine.\nScore: 8", attempts=tries, input_tokens=9, finished_at=at(3)
    )
    verdict = RUBRIC.verdict(CASE, said)
    assert (verdict.score, verdict.failure, verdict.weight) == (0.8, None, 0.25)
    assert (verdict.query_id, verdict.call_id, verdict.arm) == ("q", "c", "mini")
    assert (verdict.judge, verdict.template) == ("vendor/big", "verdict@1")
    assert (verdict.text, verdict.cost_usd, verdict.input_tokens) == ("Fine.\nScore: 8", 1.5, 9)
    assert verdict.finished_at == at(3)


def test_what_cannot_be_read_is_a_failure_with_its_words() -> None:
    """Cut to what a record may hold."""
    verdict = RUBRIC.verdict(CASE, result(arm="judge:big", text="no " * 1_000))
    assert verdict.score is None
    assert verdict.failure is not None
    assert verdict.failure.kind == "malformed_answer"
    assert len(verdict.text or "") == 2_000


def test_a_judge_that_did_not_answer_says_why() -> None:
    """And a cost that nobody knows is not 0."""
    verdict = RUBRIC.verdict(CASE, result(arm=None, attempts=(attempt(cost_usd=None),)))
    assert (verdict.failure, verdict.cost_usd, verdict.text) == (FAILED, None, None)
    assert RUBRIC.verdict(CASE, result(arm=None, attempts=())).cost_usd == 0.0


@pytest.mark.parametrize("missing", NAMED)
def test_a_judge_is_configured_whole_or_not_at_all(missing: str) -> None:
    """A model without a cap could spend without end."""
    given = {name: value for name, value in NAMED.items() if name != missing}
    with pytest.raises(ValidationError, match="give all three, or none"):
        JudgeSettings(**given)
    with pytest.raises(ValidationError, match="give both, or none"):
        JudgeSettings(**NAMED, input_usd_per_mtok=1.0)


def test_a_judge_of_unknown_price_is_refused() -> None:
    """Its cap could not see what it spends."""
    with pytest.raises(ConfigurationError, match="INPUT_USD_PER_MTOK"):
        judge_model(JudgeSettings(**NAMED))
    priced = judge_model(JudgeSettings(**NAMED, input_usd_per_mtok=1.0, output_usd_per_mtok=2.0))
    listed = judge_model(JudgeSettings(**NAMED | {"provider": "openai", "model": "gpt-4o-mini"}))
    assert priced is not None
    assert priced.price is not None
    assert listed is not None
    assert judge_model(JudgeSettings()) is None
