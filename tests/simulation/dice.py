"""The adversary's choices, read off one number.

Invariant: a number decides alike whatever was chosen before, so that a history can be cut down
to the steps that matter and told again.
"""

from __future__ import annotations

LARGEST = 2**62


class Dice:
    """Reads choices off a number, from its lowest digits on."""

    def __init__(self, number: int) -> None:
        self._rest = number

    def below(self, sides: int) -> int:
        """A number in [0, sides)."""
        self._rest, found = divmod(self._rest, sides)
        return found

    def once_in(self, sides: int) -> bool:
        """True for one side in so many."""
        return self.below(sides) == sides - 1
