"""Where tables are shown: folded to a terminal's width, and to none in a pipe or a file.

Invariant: outside a terminal every name stands whole on one line, where grep finds it.
"""

from __future__ import annotations

from rich.console import Console

UNFOLDED = 10_000


def output(*, stderr: bool = False) -> Console:
    """Standard output, or standard error."""
    found = Console(stderr=stderr)
    return found if found.is_terminal else Console(stderr=stderr, width=UNFOLDED)
