"""The code blocks of a Markdown file, with what the comment above each says about running it.

A block is run as it is shown, unless the line above it is one of these comments:

- `<!-- stays: TEXT -->`: its last command stays in the foreground; it is ready when it says TEXT.
- `<!-- run by hand: WHY -->` or `<!-- not run: WHY -->`: it is checked in another way.

In a console block a line that begins with "$ " is a command; the others show what it prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"
_FENCE = re.compile(r"^```(\w*)$")
_COMMENT = re.compile(r"^<!-- (stays|run by hand|not run): (.+) -->$")


@dataclass(frozen=True)
class Block:
    """One fenced block; `said` and `why` are the comment's two parts, empty without one."""

    language: str
    lines: tuple[str, ...]
    number: int
    said: str = ""
    why: str = ""

    @property
    def text(self) -> str:
        """What is between the fences."""
        return "\n".join(self.lines) + "\n"

    @property
    def commands(self) -> tuple[str, ...]:
        """A console block's commands."""
        return tuple(line.removeprefix("$ ") for line in self.lines if line.startswith("$ "))

    @property
    def is_run(self) -> bool:
        """Whether it is run as it is shown."""
        return self.said in ("", "stays")


def blocks(path: Path = README) -> Iterator[Block]:
    """The file's blocks, in order; `number` is the line of the opening fence."""
    lines = path.read_text(encoding="utf-8").splitlines()
    place = 0
    while place < len(lines):
        opening = _FENCE.match(lines[place])
        if opening is None:
            place += 1
            continue
        end = lines.index("```", place + 1)
        comment = _COMMENT.match(lines[place - 1])
        said, why = comment.groups() if comment else ("", "")
        yield Block(opening[1], tuple(lines[place + 1 : end]), place + 1, said, why)
        place = end + 1


def tables(path: Path, first: str) -> Iterator[list[str]]:
    """The rows of the tables whose first heading is `first`, cells stripped of spaces."""
    inside = False
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip()[1:-1].split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == first:
            inside = True
        elif inside and not line.startswith("|---"):
            yield cells
