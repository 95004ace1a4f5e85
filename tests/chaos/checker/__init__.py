"""Whether a stream kept its guarantees, judged by what users can see of it.

In goes a `History`; out come violations, each with a story to tell.
"""

from tests.chaos.checker.check import check
from tests.chaos.checker.history import (
    BAD,
    INTENT,
    Account,
    Event,
    History,
    Progress,
    Seen,
    Violation,
)
from tests.chaos.checker.story import story
from tests.chaos.checker.vendor import extra_calls

__all__ = [
    "BAD",
    "INTENT",
    "Account",
    "Event",
    "History",
    "Progress",
    "Seen",
    "Violation",
    "check",
    "extra_calls",
    "story",
]
