"""What is being prepared or started, told to whoever waits.

Invariant: progress is only ever told, nothing depends on it being heard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One step of the way to running servers.

    Attributes
    ----------
    step
        What is being done, for people.
    done, total
        How far, in units of the step (files, for example); done equals total at its end.
    """

    step: str
    done: int = 0
    total: int = 1


Listener = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """A listener for those who do not want to know."""
    del progress
