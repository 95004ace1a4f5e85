"""The words that records are made of: texts, numbers and times within bounds.

Invariant: what lies within them can be stored in PostgreSQL and read back; no NUL, no NaN, no year
that a database cannot name.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field
from pydantic_core import TzInfo


def _without_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("contains a NUL character, which PostgreSQL cannot store; remove it")
    return value


def _in_utc(value: datetime) -> datetime:
    # PostgreSQL knows no offset of 23 hours. What was parsed as UTC has a zone of pydantic's.
    zone = value.tzinfo
    if zone is UTC or (isinstance(zone, TzInfo) and not value.utcoffset()):
        return value
    return value.astimezone(UTC)


# The last moment that a record may name.
LATEST = datetime(2200, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
Id = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_without_nul)]
Name = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_without_nul)]
Label = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_without_nul)]
Text = Annotated[str, Field(min_length=1, max_length=200_000), AfterValidator(_without_nul)]
# What vendors say is taken as it comes, but for NUL.
Said = Annotated[str, AfterValidator(lambda value: value.replace("\x00", ""))]
Note = Annotated[Said, Field(max_length=2_000)]
MAX_WEIGHT = 1_000_000
Weight = Annotated[float, Field(ge=0, le=MAX_WEIGHT)]
Probability = Annotated[float, Field(ge=0, le=1)]
Usd = Annotated[float, Field(ge=0, le=1e12)]
PriceUsd = Annotated[float, Field(ge=0, le=1e6)]
Seconds = Annotated[float, Field(ge=0, le=1e10)]
Tokens = Annotated[int, Field(ge=0, le=10**12)]
# Bounds that the validator itself knows take a fraction of what a function of Python's takes.
Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), le=LATEST),
    AfterValidator(_in_utc),
]
MetadataValue = Annotated[str, Field(max_length=1_024), AfterValidator(_without_nul)]
Metadata = Annotated[dict[Name, MetadataValue], Field(max_length=64)]
# BCP 47, as in `pt-BR`; and a place of processing, matched as it is written.
Language = Annotated[str, Field(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$", max_length=35)]
Region = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Labels = Annotated[tuple[Label, ...], Field(min_length=1, max_length=1_000, fail_fast=True)]
Option = Annotated[str, Field(min_length=1, max_length=1_000), AfterValidator(_without_nul)]
Tolerance = Annotated[float, Field(ge=0, le=1e12)]
