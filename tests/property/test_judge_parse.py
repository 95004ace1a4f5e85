"""Whatever a model answers, the parser keeps its promises."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from metallm_stream.events import Query
from metallm_stream.judge import parse, prompt, quality, spelling

WORDS = st.text(alphabet="abcde ABÄß-_'+#.1²:)\u2019\uff22\u79ef", min_size=1, max_size=12)
LABELS = st.lists(WORDS, min_size=1, max_size=6, unique=True).map(tuple)
PLAIN_LABELS = st.lists(
    st.from_regex(r"[a-z]{3,8}( [a-z]{3,8}){0,2}", fullmatch=True),
    min_size=2,
    max_size=8,
    unique=True,
).map(tuple)


def ask(labels: tuple[str, ...] | None) -> Query:
    return Query(query_id="q", text="?", labels=labels)


@given(labels=LABELS, answer=st.text(max_size=200))
def test_a_prediction_is_one_of_the_labels_or_none(labels: tuple[str, ...], answer: str) -> None:
    """No text makes the parser fail, or predict anything but a label."""
    assert parse(ask(labels), answer) in (None, *labels)


@given(labels=LABELS, data=st.data())
def test_a_label_verbatim_is_always_read_as_itself(
    labels: tuple[str, ...], data: st.DataObject
) -> None:
    """However odd the labels, each one is read back from itself."""
    label = data.draw(st.sampled_from([own for own in labels if own == own.strip()] or ["x"]))
    assume(label in labels)
    assert parse(ask(labels), f"\n{label} ") == label


@given(labels=PLAIN_LABELS, data=st.data())
def test_dress_never_changes_what_is_read(labels: tuple[str, ...], data: st.DataObject) -> None:
    """Case, markup, punctuation and a leading phrase do not change the prediction."""
    label = data.draw(st.sampled_from(labels))
    cased = data.draw(st.sampled_from([label, label.upper(), label.title()]))
    dressed = data.draw(
        st.sampled_from(
            ["{}", "**{}**", "`{}`.", '"{}"', "({})", "- {}", "Answer: {}", "The label is {}."]
        )
    )
    assume("answer" not in labels and "label" not in labels)
    assert parse(ask(labels), dressed.format(cased)) == label


@given(labels=LABELS, data=st.data())
def test_reading_a_prediction_again_changes_nothing(
    labels: tuple[str, ...], data: st.DataObject
) -> None:
    """A prediction judged against itself has quality 1, against another label at most 1."""
    prediction = parse(ask(labels), data.draw(st.one_of(st.text(max_size=40), WORDS)))
    if prediction is not None:
        assert (
            quality(prediction=prediction, label=prediction, score=None, labels=labels, task=None)
            == 1.0
        )


@given(text=st.text(max_size=100))
def test_spellings_are_idempotent(text: str) -> None:
    """A text in its comparable form stays as it is."""
    for form in (spelling.plain, spelling.fold, spelling.bare):
        assert form(form(text)) == form(text)


@given(text=st.text(max_size=60), other=st.text(max_size=60))
def test_free_text_quality_is_symmetric_and_reflexive(text: str, other: str) -> None:
    """Comparing does not depend on which text is the prediction."""

    def compared(prediction: str, label: str) -> float:
        return quality(prediction=prediction, label=label, score=None, labels=None, task=None)

    assert compared(text, text) == 1.0
    assert compared(text, other) == compared(other, text)


@given(labels=st.none() | LABELS)
def test_the_users_turn_begins_with_the_text(labels: tuple[str, ...] | None) -> None:
    """A prompt always ends with a user's turn that begins with the text as it came."""
    last = prompt(ask(labels))[-1]
    assert last["role"] == "user"
    assert last["content"].startswith("?")
