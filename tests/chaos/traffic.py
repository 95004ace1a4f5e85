"""What users send: queries of every kind, judgements of every kind, repetitions, and rubbish.

Invariant: all of it follows from the seed. An answer is right or wrong as it stands, so that the
checker needs no rules of its own for judging, and what must be refused says so in a header.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

import orjson

from metallm_stream.events import Case, Choice, Extraction, Feedback, Number, Query
from metallm_stream.judge import judge_prompt, prompt, shipped
from metallm_stream.kafka import Record, TopicNames
from tests.chaos.checker import BAD, INTENT

ARMS = {"large": 0.011, "medium": 0.004, "small": 0.0007}
RIGHT = {"labels": "yes", "choice": "B", "number": "42", "words": "harbour", "free": "Hello."}
WRONG = {"labels": "no", "choice": "A", "number": "17", "words": "mountain", "free": "Goodbye."}
KINDS = tuple(RIGHT)
TEAMS = 3
# What the judge model says of a free text, and what it takes for that.
JUDGE, JUDGE_USD = "strict", 0.002
_REPLIES = {RIGHT["free"]: "Short, and polite.\nScore: 9", WRONG["free"]: "Score: 2"}
_UNJUDGEABLE = {"label": "perhaps", "score": None}
_BAD_HEADER = ((INTENT, BAD.encode()),)
RUBBISH: tuple[bytes | None, ...] = (
    None,
    b"",
    b"{query",
    b'["q"]',
    b"\xff\xfe\x00",
    b'{"query_id": 7, "text": "t", "label": "yes"}',
    b'{"query_id": "x", "text": "t", "label": "yes", "surprise": 1}',
    b'{"query_id": "x", "text": "t", "cost_weight": NaN, "score": NaN}',
    b'{"query_id": "x", "text": ' + b"[" * 3_000 + b"]" * 3_000 + b"}",
    orjson.dumps({"query_id": "x", "text": "t" * 700_000}),
)


@dataclass(frozen=True)
class Step:
    """Records that are sent together."""

    records: tuple[Record, ...]


def kind_of(number: int) -> str:
    """What kind of answer query number n wants."""
    return KINDS[number % len(KINDS)]


def query(number: int) -> Query:
    """Query number n."""
    kind = kind_of(number)
    form = {
        "choice": Choice(kind="choice", options=("a mountain", "a harbour")),
        "number": Number(kind="number"),
        "words": Extraction(kind="extraction"),
    }
    return Query(
        query_id=f"q{number}",
        text=f"Question {number} of kind {kind}?",
        task=kind,
        labels=("yes", "no") if kind == "labels" else None,
        answer=form.get(kind),
        cost_weight=(None, 0.0, 1.0)[number % 3],
        metadata={"team": f"t{number % TEAMS}"},
    )


def recording(count: int) -> dict[str, dict[str, dict[str, object]]]:
    """`large` is right, `medium` on two of three, `small` on every other; costs differ.

    And what the judge model says of their free texts.
    """
    outcomes: dict[str, dict[str, dict[str, object]]] = {}
    for number in range(count):
        kind = kind_of(number)
        right = {"large": True, "medium": number % 3 > 0, "small": number % 2 == 0}
        outcomes[prompt(query(number))[-1]["content"]] = {
            arm: {"answer": (RIGHT if right[arm] else WRONG)[kind], "cost": cost_usd}
            for arm, cost_usd in ARMS.items()
        }
        if kind == "free":
            outcomes |= {
                _shown(query(number), answer): {JUDGE: {"answer": reply, "cost": JUDGE_USD}}
                for answer, reply in _REPLIES.items()
            }
    return outcomes


def _shown(asked: Query, answer: str) -> str:
    """What the judge model is asked about an answer."""
    texts = {"question": asked.text, "answer": answer}
    case = Case(query_id=asked.query_id, call_id="c", arm="a", model="m", **texts)
    return judge_prompt(case, shipped().by_kind["verdict"])


def steps(names: TopicNames, count: int, *, chunk: int, seed: int, bad: float) -> list[Step]:
    """All traffic in the order in which it is sent.

    Each step asks `chunk` queries and judges some of them at once, others steps later or before
    they are asked; a share of `bad` is repeated, and as much is rubbish.
    """
    rng = Random(f"traffic {seed}")
    numbers = list(range(count))
    for place in range(0, count, 7):  # a little out of order
        other = min(count - 1, place + rng.randrange(5))
        numbers[place], numbers[other] = numbers[other], numbers[place]
    whole = -(-count // chunk)
    sent: list[list[Record]] = [[] for _ in range(whole + 4)]
    for place, number in enumerate(numbers):
        step = place // chunk
        asked = query(number)
        sent[step].append(Record.of(names.queries, asked.query_id, asked))
        if rng.random() < bad:
            again = min(whole, step + rng.randrange(3))
            sent[again].append(_repetition(names, asked, rng))
        for later, judged in _judgements(number, rng):
            when = min(len(sent) - 1, max(0, step + later))
            sent[when].append(Record.of(names.feedback, judged.query_id, judged))
            if rng.random() < bad:
                sent[when].append(Record.of(names.feedback, judged.query_id, judged))
        if rng.random() < bad:
            topic = rng.choice((names.queries, names.feedback))
            value = rng.choice(RUBBISH)
            sent[step].append(Record(topic, b"rubbish", value, headers=_BAD_HEADER))
    return [Step(tuple(records)) for records in sent if records]


def _repetition(names: TopicNames, asked: Query, rng: Random) -> Record:
    """The same query again, or another one under its id, which is refused."""
    if rng.random() < 0.7:
        return Record.of(names.queries, asked.query_id, asked)
    other = asked.model_copy(update={"text": f"{asked.text} Or not?"})
    return Record(names.queries, asked.query_id.encode(), other.encode(), headers=_BAD_HEADER)


def _judgements(number: int, rng: Random) -> list[tuple[int, Feedback]]:
    """Feedback on one query with how many steps after it each is sent."""
    kind, query_id, draw = kind_of(number), f"q{number}", rng.random()
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    first = Feedback(query_id=query_id, given_at=at, **_verdict(kind, rng))
    later = rng.choice((-1, 0, 0, 1, 2))
    if draw < 0.15:
        return []
    if draw < 0.65:
        return [(later, first)]
    if draw < 0.75:  # without a time of its own
        return [(0, Feedback(query_id=query_id, **_verdict(kind, rng)))]
    newer = at + timedelta(seconds=30)
    if draw < 0.85:  # corrected, the correction perhaps first
        second = Feedback(query_id=query_id, given_at=newer, **_verdict(kind, rng))
        return [(later, first), (rng.choice((-1, 1)), second)]
    if draw < 0.95:  # two judges, one of whom takes it back
        named = first.model_copy(update={"feedback_id": "anna"})
        other = Feedback(query_id=query_id, feedback_id="ben", given_at=newer, score=0.5)
        back = Feedback(
            query_id=query_id,
            feedback_id="ben",
            given_at=newer + timedelta(seconds=1),
            withdrawn=True,
        )
        return [(later, named), (0, other), (1, back)]
    return [(0, first if kind != "labels" else first.model_copy(update=_UNJUDGEABLE))]


def _verdict(kind: str, rng: Random) -> dict[str, str | float]:
    if kind == "free" or rng.random() < 0.2:
        return {"score": round(rng.random(), 3)}
    return {"label": (RIGHT if rng.random() < 0.7 else WRONG)[kind]}
