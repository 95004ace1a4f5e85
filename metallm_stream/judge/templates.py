"""Prompt templates: data with a name and a version, one for each kind of task and for the judge.

Invariant: a template is text with named placeholders and nothing that could run; what is filled in
is never read as a template itself. A template that lacks a placeholder of its kind, or has one
that nobody fills, is refused before it is used.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Name, explain

# What the user's turn of each kind must have.
PLACEHOLDERS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "classification": frozenset(("text", "labels")),
        "choice": frozenset(("text", "options")),
        "number": frozenset(("text",)),
        "extraction": frozenset(("text",)),
        "free_text": frozenset(("text",)),
        "verdict": frozenset(("question", "answer", "fence")),
    }
)
_PLACEHOLDER = re.compile(r"\{(\w{1,64})\}")
_Prose = Annotated[str, Field(min_length=1, max_length=20_000)]


class Template(BaseModel):
    """One prompt template.

    Parameters
    ----------
    name, version
        What results are marked with: raise the version with every change of the text.
    system
        The system prompt of queries that bring none of their own; as it stands.
    user
        The last user turn; the placeholders of its kind are filled in, other braces stay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[Name, Field(max_length=64)]
    version: Annotated[int, Field(ge=1, le=10**9)]
    user: _Prose
    system: _Prose | None = None

    @property
    def mark(self) -> str:
        """Name and version in one word."""
        return f"{self.name}@{self.version}"

    def filled(self, values: Mapping[str, str]) -> str:
        """The user's turn.

        >>> Template(name="mine", version=2, user="Q: {text}").filled({"text": "Why {text}?"})
        'Q: Why {text}?'
        """
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.user)


@dataclass(frozen=True, slots=True)
class Templates:
    """The template of each kind of task."""

    by_kind: Mapping[str, Template]


@lru_cache(maxsize=1)
def shipped() -> Templates:
    """The templates of this package.

    >>> shipped().by_kind["classification"].mark
    'classification@1'
    """
    directory = files("metallm_stream.judge") / "prompts"
    return Templates({kind: _read(directory / f"{kind}.toml", kind) for kind in PLACEHOLDERS})


def load(directory: Path) -> Templates:
    """The templates of this package, those that `directory` has as `<kind>.toml` replaced.

    Raises `ConfigurationError` that names the file and what is wrong with it.
    """
    if not directory.is_dir():
        raise ConfigurationError(f"templates: {directory} is no directory that can be read")
    own = {path.stem: path for path in sorted(directory.glob("*.toml"))}
    unknown = own.keys() - PLACEHOLDERS.keys()
    if unknown:
        raise ConfigurationError(
            f"templates: {own[min(unknown)]} is of no kind of task: name it one of "
            + ", ".join(f"{kind}.toml" for kind in PLACEHOLDERS)
        )
    return Templates(
        {**shipped().by_kind, **{kind: _read(path, kind) for kind, path in own.items()}}
    )


def _read(path: Path | Traversable, kind: str) -> Template:
    try:
        template = Template(**tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigurationError(f"template {path}: {exc}") from exc
    except ValidationError as exc:
        raise ConfigurationError(f"template {path}: {explain(exc)}") from exc
    found = set(_PLACEHOLDER.findall(template.user))
    wanted = PLACEHOLDERS[kind]
    if found != wanted:
        shown = " and ".join(f"{{{name}}}" for name in sorted(wanted, reverse=True))
        odd = ", ".join(sorted(found ^ wanted))
        raise ConfigurationError(f"template {path}: user: needs {shown} and no others (see {odd})")
    return template
