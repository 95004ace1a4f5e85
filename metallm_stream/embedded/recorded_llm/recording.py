"""What real models answered to known texts, read from JSON lines.

Invariant: nothing is made up that money depends on: an outcome without a recorded cost reports
none, so whoever asks sees the same gap as the log has.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Query, explain
from metallm_stream.judge.dispatch import prompt

_CHARACTERS_PER_TOKEN = 4

_Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Tokens = Annotated[int, Field(ge=0)]


class Outcome(BaseModel):
    """What one model did with one text; `None` where the log has no such value.

    In files, `cost` may stand for `cost_usd`, and `latency_ms` for `latency_s`.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    answer: str | None = None
    cost_usd: _Usd | None = Field(None, validation_alias=AliasChoices("cost_usd", "cost"))
    input_tokens: _Tokens | None = None
    output_tokens: _Tokens | None = None
    latency_s: _Seconds | None = None
    latency_ms: _Seconds | None = None
    quality: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @property
    def text(self) -> str:
        """The recorded answer, or a note that says that none was recorded, and its quality."""
        if self.answer is not None:
            return self.answer
        quality = "" if self.quality is None else f" of quality {self.quality:g}"
        return f"(an answer{quality} whose text was not recorded)"

    @property
    def recorded_latency_s(self) -> float | None:
        """Seconds to the answer, from whichever unit the log has."""
        if self.latency_s is None and self.latency_ms is not None:
            return self.latency_ms / 1e3
        return self.latency_s

    def prompt_tokens(self, text: str) -> int:
        """Tokens in; where the log has none, a quarter of the characters."""
        return _estimated(text) if self.input_tokens is None else self.input_tokens

    def completion_tokens(self) -> int:
        """Tokens out; where the log has none, a quarter of the characters."""
        return _estimated(self.text) if self.output_tokens is None else self.output_tokens


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore", title="no line of a recording")

    text: Annotated[str, Field(min_length=1)]
    labels: tuple[str, ...] | None = None
    outcomes: Annotated[dict[str, Outcome], Field(min_length=1)]


@dataclass(frozen=True)
class Recording:
    """Outcomes by the text of the last user turn and then by model.

    >>> recording = Recording({"2 + 2?": {"mini": Outcome(answer="4")}})
    >>> recording.models
    ('mini',)
    >>> recording.outcomes("2 + 2?")["mini"].text
    '4'
    """

    by_text: Mapping[str, Mapping[str, Outcome]]
    models: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = {model for outcomes in self.by_text.values() for model in outcomes}
        object.__setattr__(self, "models", tuple(sorted(names)))

    def outcomes(self, text: str) -> Mapping[str, Outcome] | None:
        """The outcomes of a text by model, or `None` if it was not recorded."""
        return self.by_text.get(text)


def read_recording(paths: Iterable[Path]) -> Recording:
    """Read files of JSON lines `{"text", "labels"?, "outcomes": {model: {...}}}`, `.gz` or plain.

    A text with labels is also known under the prompt that this service builds from them. A text
    recorded twice has the outcomes of its last line for each model. Raises `ConfigurationError`
    that names file, line and reason.
    """
    by_text: dict[str, dict[str, Outcome]] = {}
    for path in paths:
        for line in _lines(path):
            for text in _texts(line):
                by_text.setdefault(text, {}).update(line.outcomes)
    return Recording(by_text)


def _lines(path: Path) -> Iterator[_Line]:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"recording {path} cannot be read: {exc}") from exc
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            yield _Line.model_validate_json(line)
        except ValidationError as exc:
            raise ConfigurationError(f"recording {path}, line {number}: {explain(exc)}") from exc


def _texts(line: _Line) -> tuple[str, ...]:
    if not line.labels:
        return (line.text,)
    asked = prompt(Query(query_id="recorded", text=line.text, labels=line.labels))
    return (line.text, asked[-1]["content"])


def _estimated(text: str) -> int:
    return math.ceil(len(text) / _CHARACTERS_PER_TOKEN)
