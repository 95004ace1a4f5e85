"""What models are asked."""

from __future__ import annotations

from metallm_stream.events import Message, Query
from metallm_stream.judge import parse, prompt


def test_free_text_is_asked_as_it_came() -> None:
    """Without labels, system and earlier turns, the only turn is the text."""
    assert prompt(Query(query_id="q", text=" 2 + 2? ")) == (
        {"role": "user", "content": " 2 + 2? "},
    )


def test_turns_come_in_order_system_first() -> None:
    """System, earlier turns, then the user's turn."""
    query = Query(
        query_id="q",
        text="And 3 + 3?",
        system="Be brief.",
        messages=(
            Message(role="user", content="2 + 2?"),
            Message(role="assistant", content="4"),
        ),
    )
    assert [(turn["role"], turn["content"]) for turn in prompt(query)] == [
        ("system", "Be brief."),
        ("user", "2 + 2?"),
        ("assistant", "4"),
        ("user", "And 3 + 3?"),
    ]


def test_a_classification_lists_its_labels_after_the_text() -> None:
    """The text comes first and unchanged; each label has a line of its own."""
    (turn,) = prompt(Query(query_id="q", text="Great!", labels=("very\ngood", "bad")))
    assert turn["content"].startswith("Great!\n\n")
    assert turn["content"].endswith("\n- very good\n- bad")


def test_each_listed_label_is_read_back_when_answered() -> None:
    """A model that copies a line of the list has answered with that label."""
    labels = ("very\ngood", "good", "not good", "-1", "a-b")
    query = Query(query_id="q", text="Great!", labels=labels)
    lines = prompt(query)[-1]["content"].splitlines()[-len(labels) :]
    assert [parse(query, line) for line in lines] == list(labels)
