"""Logged outcomes: queries for which the quality, and mostly the cost, of every arm is known.

Invariant: what a file lacks is left out or filled in by a stated rule and reported, never taken
as zero in silence.
"""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from metallm_stream.errors import InvalidEvent, counted
from metallm_stream.events import Id, Name, Probability, Usd, explain


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What n queries would have got from each of K arms.

    Attributes
    ----------
    arms
        Names, in alphabetical order.
    texts
        The n queries, in the order of the file.
    quality
        `(n, K)`, in [0, 1].
    cost_usd
        `(n, K)`, USD of each call; a column of NaN for an arm whose costs are not known.
    notes
        What was left out or filled in, one sentence each, to be shown to the user.

    """

    arms: tuple[str, ...]
    texts: tuple[str, ...]
    quality: NDArray[np.float64]
    cost_usd: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def priced(self, cost_weight: float) -> Outcomes:
        """The arms that can be compared under a cost weight.

        Where no arm has a cost, costs are 0. Else, and if cost counts at all, arms without a
        cost are left out.
        """
        unknown = np.asarray(np.isnan(self.cost_usd).all(axis=0))
        if unknown.all():
            note = "no arm has a cost: cost is taken as 0"
            zeros = np.zeros_like(self.cost_usd)
            return replace(self, cost_usd=zeros, notes=(*self.notes, note))
        if not unknown.any() or cost_weight == 0:
            return self
        left_out = ", ".join(arm for arm, gone in zip(self.arms, unknown, strict=True) if gone)
        return replace(
            self,
            arms=tuple(arm for arm, gone in zip(self.arms, unknown, strict=True) if not gone),
            quality=self.quality[:, ~unknown],
            cost_usd=self.cost_usd[:, ~unknown],
            notes=(*self.notes, f"arms without a cost left out: {left_out}"),
        )


class Outcome(BaseModel):
    """What one arm gave; `quality` null or absent means that there is no outcome.

    Other fields are ignored, but not in place of these: see `LoggedQuery`.
    """

    model_config = ConfigDict(allow_inf_nan=False)
    quality: Probability | None = None
    cost: Usd | None = None


class LoggedQuery(BaseModel):
    """One query of a file, with the outcomes of some or all arms; other fields are ignored.

    An outcome with a field that seems to be meant for one that it lacks (`qualty`, `score`,
    `cost_usd`) is refused: it would count for nothing.
    """

    model_config = ConfigDict(allow_inf_nan=False, title="line")
    query_id: Id
    text: str
    outcomes: dict[Name, Outcome] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _spelt(cls, line: object) -> object:
        match line:
            case {"query_id": query_id, "outcomes": dict() as outcomes}:
                for arm, outcome in outcomes.items():
                    if isinstance(outcome, dict) and (field := _misspelt(outcome)):
                        raise ValueError(
                            f"query {query_id!r:.80}, arm {arm!r:.80}: no field {field!r:.80} is "
                            f"known of an outcome; known are {' and '.join(Outcome.model_fields)}"
                        )
        return line


def read_outcomes(path: Path) -> Outcomes:
    """Read JSON lines, plain or gzip'd: `query_id`, `text`, `outcomes {arm: {quality, cost}}`.

    The arms are those of all lines together; a line without the quality of one of them is left
    out, and so is a line whose `query_id` stood before. A missing cost of an arm that has others
    is taken as their mean.

    Raises `InvalidEvent`, with the number of the line, for what is no such line, or if no query
    is left.
    """
    lines = list(_parsed(path.name, _lines(path)))
    if not lines:
        raise InvalidEvent(f"{path.name}: there is no query in this file")
    notes = []
    unique = list({line.query_id: line for line in reversed(lines)}.values())[::-1]
    if len(unique) < len(lines):
        notes.append(
            f"{counted(len(lines) - len(unique), 'line')} with an earlier query_id left out"
        )
    arms = sorted({arm for line in unique for arm in line.outcomes})
    complete = [line for line in unique if _is_complete(line, arms)]
    if not complete:
        raise InvalidEvent(
            f"{path.name}: no query has an outcome of every arm ({', '.join(arms)}): all of "
            'them need a "quality" from 0 to 1 in one line'
        )
    if len(complete) < len(unique):
        lacking = counted(len(unique) - len(complete), "query")
        notes.append(f"{lacking} without every arm's outcome left out")
    outcomes = [[line.outcomes[arm] for arm in arms] for line in complete]
    cost, filled = _without_gaps(np.array([[_number(o.cost) for o in row] for row in outcomes]))
    if filled:
        notes.append(f"{counted(filled, 'missing cost')} taken as the arm's mean")
    return Outcomes(
        arms=tuple(arms),
        texts=tuple(line.text for line in complete),
        quality=np.array([[_number(o.quality) for o in row] for row in outcomes]),
        cost_usd=cost,
        notes=tuple(notes),
    )


def read_logged(path: Path) -> tuple[LoggedQuery, ...]:
    """Read the same lines as they are, also those with the outcomes of some arms only.

    Of several lines with one `query_id` the first counts. Raises `InvalidEvent` as
    `read_outcomes` does.
    """
    found: dict[str, LoggedQuery] = {}
    for line in _parsed(path.name, _lines(path)):
        found.setdefault(line.query_id, line)
    if not found:
        raise InvalidEvent(f"{path.name}: there is no query in this file")
    return tuple(found.values())


def _lines(path: Path) -> Iterator[bytes]:
    """The file's lines; split on newline bytes only, since texts may hold other line breaks."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError) as exc:
            raise InvalidEvent(f"{path.name}: not a whole gzip file ({exc})") from exc
    yield from io.BytesIO(raw)


def _parsed(name: str, lines: Iterable[bytes]) -> Iterator[LoggedQuery]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield LoggedQuery.model_validate_json(line)
        except ValidationError as exc:
            raise InvalidEvent(f"{name}, line {number}: {explain(exc)}") from exc


def _misspelt(outcome: dict[str, Any]) -> str | None:
    """The first field that stands where a known one should, if there is one."""
    lacking = tuple(name for name in Outcome.model_fields if name not in outcome)
    others = (field for field in outcome if field not in Outcome.model_fields)
    return next((field for field in others if _is_meant(field.lower(), lacking)), None)


_SYNONYMS = {
    "quality": {"score", "rating", "reward", "accuracy"},
    "cost": {"cost_usd", "price", "price_usd", "usd"},
}


@lru_cache(1_000)
def _is_meant(field: str, lacking: tuple[str, ...]) -> bool:
    """Whether an unknown field has the spelling or the meaning of one that is lacking."""
    looks_alike = bool(get_close_matches(field, lacking, 1, 0.8))
    return looks_alike or any(field in _SYNONYMS[name] for name in lacking)


def _is_complete(line: LoggedQuery, arms: list[str]) -> bool:
    return all(arm in line.outcomes and line.outcomes[arm].quality is not None for arm in arms)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _without_gaps(cost: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Costs with each arm's gaps at the arm's mean, and how many gaps there were."""
    gaps = np.isnan(cost)
    gaps[:, gaps.all(axis=0)] = False
    known = np.where(np.isnan(cost), 0.0, cost).sum(axis=0)
    mean = known / np.maximum(len(cost) - gaps.sum(axis=0), 1)
    return np.where(gaps, mean, cost), int(gaps.sum())
