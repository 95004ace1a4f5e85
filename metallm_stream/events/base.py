"""How all records are read and written.

Invariant: what parses is immutable, has finite numbers and a known version; what does not is told
by field, value and reason.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from itertools import pairwise
from typing import ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from metallm_stream.errors import InvalidEvent

SCHEMA_VERSION: Final = 1
_REASON_CHARACTERS = 1_000
_TOLD = 3


class Event(BaseModel):
    """Base of all records: immutable, finite numbers, versioned."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )
    _extra: ClassVar[Literal["ignore", "forbid"]] = "ignore"
    schema_version: Literal[1] = SCHEMA_VERSION

    @classmethod
    def parse(cls, value: bytes | None) -> Self:
        """Read one record's value; raises `InvalidEvent` that names field, value and reason."""
        if value is None:
            raise InvalidEvent(f"empty value (tombstone) where a {cls.__name__} was expected")
        try:
            return cls.model_validate_json(value, strict=True, extra=cls._extra)
        except ValidationError as exc:
            raise InvalidEvent(explain(exc, known=cls.model_fields)) from exc

    def encode(self) -> bytes:
        """The record's value as UTF-8 JSON, unset optional fields left out."""
        return self.model_dump_json(exclude_none=True).encode()


class UserEvent(Event):
    """Base of the records that users write: unknown fields are refused when one is read.

    Inside a call, which a newer router may have written, they are ignored like all others.
    """

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})
    _extra = "forbid"


def explain(error: ValidationError, *, known: Collection[str] = ()) -> str:
    """A validation error in one line of bounded length: field, reason, the start of the value.

    The value of an unknown field is not shown: it may be a secret under a misspelt name. Which of
    the `known` fields may have been meant is told.

    >>> from metallm_stream.events import Query
    >>> try:
    ...     Query.parse(b'{"query_id": "q", "text": "t", "cost_weight": -1}')
    ... except InvalidEvent as exc:
    ...     print(exc.reason)
    cost_weight: Input should be greater than or equal to 0 (got -1)
    >>> try:
    ...     Query.parse(b'{"query_id": "q", "text": "t", "max_cost": 0.1}')
    ... except InvalidEvent as exc:
    ...     print(exc.reason)
    max_cost: no such field; did you mean max_cost_usd?
    """
    parts, told = [], _errors(error)
    for item in told[:_TOLD]:
        where = ".".join(str(step) for step in item["loc"])[:200] or error.title
        if item["type"] == "extra_forbidden":
            meant = get_close_matches(where, known, 1)
            parts.append(f"{where}: no such field" + "".join(f"; did you mean {m}?" for m in meant))
            continue
        got = "" if isinstance(item["input"], dict | list) else repr(item["input"])
        shown = f" (got {got[:80]})" if got else ""
        said = item["msg"].removeprefix("Value error, ")[:_REASON_CHARACTERS]
        parts.append(f"{where}: {said}{shown}")
    hidden = len(told) - _TOLD
    more = f"; and {hidden} more" if hidden > 0 else ""
    return _in_one_line("; ".join(parts))[:_REASON_CHARACTERS] + more


def _errors(error: ValidationError) -> list[ErrorDetails]:
    """All errors; a list that was read up to its first wrong item is not too short as well."""
    errors = error.errors(include_url=False)
    return errors[:1] + [
        item
        for before, item in pairwise(errors)
        if item["type"] != "too_short" or before["loc"][: len(item["loc"])] != item["loc"]
    ]


def _in_one_line(text: str) -> str:
    """The text with what would begin another line, or move a cursor, written out."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
