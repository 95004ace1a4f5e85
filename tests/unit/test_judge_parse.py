"""What answers are read as: one table a rule, in the order of the rules."""

from __future__ import annotations

import pytest

from metallm_stream.events import Query
from metallm_stream.judge import parse

LETTERS = ("A", "B", "C", "D")
MOODS = ("positive", "negative", "neutral")
YES_NO = ("yes", "no")
TRUTH = ("True", "False")


def read(
    labels: tuple[str, ...], answer: str, *, text: str = "?", task: str | None = None
) -> object:
    return parse(Query(query_id="q", text=text, labels=labels, task=task), answer)


@pytest.mark.parametrize(
    ("labels", "answer", "label"),
    [
        (LETTERS, "B", "B"),
        (LETTERS, "b", "B"),
        (LETTERS, "a.", "A"),
        (LETTERS, " \n\nB\n", "B"),
        (LETTERS, "**B**", "B"),
        (LETTERS, "(B)", "B"),
        (LETTERS, "`b`", "B"),
        (LETTERS, "\u201cB\u201d", "B"),
        (LETTERS, "\uff22", "B"),
        (TRUTH, "\n\nfalse", "False"),
        (TRUTH, "TRUE!", "True"),
        (("New York", "York"), "new_york", "New York"),
        (("toxic", "not toxic"), "Not-Toxic", "not toxic"),
        (("stra\u00dfe", "weg"), "STRASSE", "stra\u00dfe"),
        (("-1", "0", "1"), "-1", "-1"),
        (("-1", "0", "1"), "\u22121.", "-1"),
        (("0.0", "1.0"), "1.0.", "1.0"),
        (("\U0001f44d", "\U0001f44e"), "\U0001f44d", "\U0001f44d"),
        ((":)", ":("), ":(", ":("),
        (("\u79ef\u6781", "\u6d88\u6781"), "\u79ef\u6781\u3002", "\u79ef\u6781"),
        (("Pad thai\nspicy", "mild"), "pad thai  spicy", "Pad thai\nspicy"),
    ],
)
def test_a_label_alone_is_read_whatever_its_case_and_dress(
    labels: tuple[str, ...], answer: str, label: str
) -> None:
    """Case, Unicode form, markup and punctuation around a lone label do not matter."""
    assert read(labels, answer) == label


@pytest.mark.parametrize(
    ("labels", "answer", "label"),
    [
        (LETTERS, "The answer is (B).", "B"),
        (LETTERS, "The correct answer to the question is the letter C, not A.", "C"),
        (LETTERS, "Answer: b", "B"),
        (LETTERS, "**Answer:** B\n**Reason:** A is wrong", "B"),
        (LETTERS, "Answer:\n\nB\n\nA and C are wrong.", "B"),
        (LETTERS, '{"answer": "D", "reason": "A is wrong"}', "D"),
        (LETTERS, '```json\n{"label": "D", "reason": "A is wrong"}\n```', "D"),
        (LETTERS, "<answer>C</answer> since A and B fail", "C"),
        (LETTERS, "A or B? The final answer is $\\boxed{\\text{C}}$.", "C"),
        (LETTERS, "Between A and B I'd choose A", "A"),
        (LETTERS, "I would go with option D, A is a distractor", "D"),
        (LETTERS, "A is correct because B isn't.", "A"),
        (LETTERS, "B and C are close, but D is the most likely.", "D"),
        (LETTERS, "The answer is B. Wait, actually the answer is C.", "C"),
        (MOODS, "The sentiment is not positive; the label is negative.", "negative"),
        (MOODS, "It was classified by me as neutral rather than positive", "neutral"),
        (MOODS, "Positive: great cast. Negative: long. Overall neutral", "neutral"),
        (MOODS, "Positive and negative parts; therefore, it is **Negative**.", "negative"),
        (("Question", "Answer"), "The answer is Question", "Question"),
        (("C", "C++", "C#"), "Not C. The answer is C#.", "C#"),
        (("US", "us"), "The answer is us, not US", "us"),
    ],
)
def test_the_last_explicit_statement_decides(
    labels: tuple[str, ...], answer: str, label: str
) -> None:
    """A statement such as "the answer is X" wins over whatever else is mentioned."""
    assert read(labels, answer) == label


def test_the_tasks_name_is_a_word_for_answer() -> None:
    """A statement may use the task's name: "the emotion here is joy"."""
    answer = "The emotion here is joy, though fear is near."
    assert read(("fear", "joy"), answer, task="emotion") == "joy"
    assert read(("fear", "joy"), answer) is None


@pytest.mark.parametrize(
    ("labels", "answer", "label"),
    [
        (LETTERS, "A good reader would say B", "B"),
        (LETTERS, "I'd say option C", "C"),
        (LETTERS, "B: TrustworthyAABBB", "B"),
        (MOODS, "This film review sounds Negative to me", "negative"),
        (("Agreement", "Lack of Agreement"), "Clear lack of agreement here", "Lack of Agreement"),
        (("agreement", "disagreement"), "Plain disagreement", "disagreement"),
        (("toxic", "not toxic"), "This text is not toxic at all", "not toxic"),
        (YES_NO, "There is no way, so yes", "yes"),
        (("\u79ef\u6781", "\u6d88\u6781"), "\u7b54\u6848\u662f\u79ef\u6781\u7684", "\u79ef\u6781"),
        (("\uae0d\uc815", "\ubd80\uc815"), "\uae0d\uc815\uc785\ub2c8\ub2e4", "\uae0d\uc815"),
        (MOODS, "not negative but positive", "positive"),
    ],
)
def test_a_single_mentioned_label_is_read_from_prose(
    labels: tuple[str, ...], answer: str, label: str
) -> None:
    """One label mentioned as a word is the answer; the longest of nested ones counts."""
    assert read(labels, answer) == label


@pytest.mark.parametrize(
    ("labels", "answer", "label"),
    [
        (LETTERS, "B\n\nSince A and C fail.", "B"),
        (LETTERS, "A and B are near, C is not.\n\n**B**", "B"),
        (LETTERS, "B\nC\nD", "B"),
        (YES_NO, "Yes, since there is no, as it were, evidence", "yes"),
        (LETTERS, "B) since A, C and D fail", "B"),
        (TRUTH, "False. Some may find it True", "False"),
    ],
)
def test_a_line_of_its_own_or_an_opening_decides_among_several(
    labels: tuple[str, ...], answer: str, label: str
) -> None:
    """With several labels mentioned: the first line, the last line, then a set-off opening."""
    assert read(labels, answer) == label


@pytest.mark.parametrize(
    ("labels", "answer"),
    [
        (LETTERS, ""),
        (LETTERS, " \n\t "),
        (LETTERS, "***"),
        (LETTERS, "I cannot say"),
        (LETTERS, "The answer is a bit unclear"),
        (LETTERS, "Both A and B are plausible"),
        (LETTERS, "The answer is B or C"),
        (LETTERS, "A+"),
        (TRUTH, 'I cannot answer with "True" or "False" alone'),
        (MOODS, "It is not positive"),
        (("toxic", "safe"), "It is non-toxic"),
        (YES_NO, "I am sorry, there is no way to tell"),
        (("0", "1"), "-1"),
        (("0", "1"), "0.5"),
        (("3", "4"), "the 3rd"),
        (("agreement",), "disagreement"),
    ],
)
def test_an_answer_that_cannot_be_read_is_no_prediction(
    labels: tuple[str, ...], answer: str
) -> None:
    """Nothing is guessed where no rule finds a label."""
    assert read(labels, answer) is None


def test_reasoning_before_the_answer_is_not_read() -> None:
    """Labels within a reasoning block do not count."""
    assert read(LETTERS, "<think>The answer is A. No, B?</think>\nC") == "C"


@pytest.mark.parametrize("answer", ["B", "(B) Anger", "b", "\nB: AngerBCA", "The answer is B."])
def test_letters_that_the_text_gives_to_the_labels_stand_for_them(answer: str) -> None:
    """Where the text lists lettered options, an answer by letter means that option's label."""
    text = "How do they feel?\nA: Fear (of what?)\nB: Anger\nC: Joy\n\nAnswer with one letter."
    assert read(("Fear", "Anger", "Joy"), answer, text=text) == "Anger"


@pytest.mark.parametrize(
    "text",
    [
        "A: Fear\nA: Anger",
        "A: Fear\nB: Fear",
        "B: Anger",
        "A: unknown\nB: thing",
    ],
)
def test_letters_that_are_not_a_clear_list_of_the_labels_mean_nothing(text: str) -> None:
    """Repeated letters, repeated labels or a list of one are no options."""
    assert read(("Fear", "Anger"), "B", text=text) is None


def test_a_letter_that_is_itself_a_label_means_that_label() -> None:
    """Options never take a name away from a label."""
    assert read(("A", "B"), "A", text="A: B is meant\nB: A is meant") == "A"


def test_of_a_very_long_answer_both_ends_are_read() -> None:
    """The end of an answer of a million characters still decides, in well under a second."""
    long = "some words and positive, negative ones. " * 25_000
    assert read(MOODS, f"{long}\nThe answer is neutral.") == "neutral"
    assert read(MOODS, f"The answer is neutral.\n{'some other words. ' * 50_000}") == "neutral"


def test_labels_that_differ_in_case_alone_are_told_apart_by_case() -> None:
    """With labels "US" and "us", case decides."""
    assert [read(("US", "us"), answer) for answer in ("US.", "us.", "Us.")] == ["US", "us", None]


def test_a_label_with_surrounding_space_keeps_its_spelling() -> None:
    """The prediction is spelled as the query spelled the label."""
    assert read((" Spam ", "ham"), "spam") == " Spam "


def test_a_label_given_twice_is_one_label() -> None:
    """Repeated labels do no harm."""
    assert read(("spam", "spam", "ham"), "It is spam") == "spam"


def test_free_text_is_the_answer_without_surrounding_space() -> None:
    """Without labels the prediction is what the model wrote."""
    assert parse(Query(query_id="q", text="?"), "\n The answer is B. \n") == "The answer is B."
    assert parse(Query(query_id="q", text="?"), "") == ""
