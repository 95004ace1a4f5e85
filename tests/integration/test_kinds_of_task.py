"""Options, numbers and words through the whole service: asked, read, judged, and told in SQL."""

from __future__ import annotations

import pytest

from metallm_stream.events import Choice, Extraction, Feedback, Number, Query
from metallm_stream.judge import load, prompt
from tests.pipeline import Pipeline

QUERIES = (
    Query(
        query_id="choice",
        text="Which is the capital of Italy?",
        answer=Choice(kind="choice", options=("Paris", "Rome")),
    ),
    Query(query_id="number", text="90 minutes at 80 km/h?", answer=Number(kind="number")),
    Query(
        query_id="words",
        text="The river Seine flows through Paris. What does?",
        answer=Extraction(kind="extraction"),
    ),
    Query(query_id="label", text="Is it so?", labels=("yes", "no")),
    Query(query_id="free", text="Say hello."),
)
ANSWERS = {
    "choice": "**B)** Rome, of course.",
    "number": "80 * 1.5 = 120\n#### 120.0 km",
    "words": "The river Seine.",
    "label": "No.",
    "free": "Hello!",
}
LABELS = {"choice": "Rome", "number": "1.2e2", "words": "Seine", "label": "yes", "free": "hello"}
OWN = 'name = "sums"\nversion = 4\nuser = "Work out: {text}"\n'


def test_each_kind_is_asked_read_and_judged_its_own_way(pipeline: Pipeline) -> None:
    """The prompt comes from the kind's template, whose version stands beside the quality in SQL."""
    directory = pipeline.directory / "templates"
    directory.mkdir()
    (directory / "number.toml").write_text(OWN)
    templates = load(directory)
    pipeline.record(
        {
            prompt(query, templates)[-1]["content"]: {"large": {"answer": ANSWERS[query.query_id]}}
            for query in QUERIES
        }
    )
    pipeline.start_all(TEMPLATES_DIR=str(directory))
    pipeline.ask(*QUERIES)
    results = pipeline.wait_for_results(len(QUERIES))
    assert {query_id: result.prediction for query_id, result in results.items()} == {
        "choice": "B",
        "number": "120",
        "words": "The river Seine.",
        "label": "no",
        "free": "Hello!",
    }
    pipeline.judge(*(Feedback(query_id=key, label=label) for key, label in LABELS.items()))
    pipeline.wait_until_learned()
    rows = pipeline.sql(
        "SELECT query_id, result->>'template' AS template, quality FROM metallm.interactions"
    )
    assert {str(row["query_id"]): (row["template"], row["quality"]) for row in rows} == {
        "choice": ("choice@1", 1.0),
        "number": ("sums@4", 1.0),
        "words": ("extraction@1", pytest.approx(2 / 3)),
        "label": ("classification@1", 0.0),
        "free": ("free_text@1", 1.0),
    }
