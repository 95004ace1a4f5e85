"""Positions and versions of policies never go back."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.checker.history import History, Progress, Violation


def nothing_goes_back(history: History) -> Iterator[Violation]:
    """Each position that was seen is no smaller than any that was seen before it."""
    newest: dict[tuple[str, str], Progress] = {}
    for item in history.progress:
        held = newest.get((item.whose, item.where))
        if held is not None and item.position < held.position:
            said = f"{item.whose}, {item.where}: {item.position} after {held.position}"
            yield Violation("position", f"{said} at {item.at_s:.3f}")
        newest[item.whose, item.where] = item


def versions_grow(history: History) -> Iterator[Violation]:
    """Each policy on the topic is newer than the one before it."""
    above = 0
    for item in sorted(history.of("policy"), key=lambda seen: seen.offset):
        value = item.value or {}
        if value.get("kind") == "manifest":
            if value["version"] <= above:
                yield Violation("policy", f"version {value['version']} after {above}")
            above = max(above, value["version"])
