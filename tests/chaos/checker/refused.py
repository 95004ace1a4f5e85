"""A dead letter for each bad record, and only for those."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.chaos.checker.history import History, Violation

# The learner writes its dead letters at least once; SQL has each once.
_EXACTLY_ONCE = ("queries",)


def dead_letters(history: History) -> Iterator[Violation]:
    """Topic and SQL have one for each record that was bad, and none for a good one."""
    bad = history.refused()
    letters = Counter(
        (
            item.topic.removesuffix(".dlq"),
            int(item.headers.get("metallm.partition", -1)),
            int(item.headers.get("metallm.offset", -1)),
        )
        for item in history.records
        if item.topic.endswith(".dlq")
    )
    queries = {item.place: item.query_id for item in history.records}
    for place in sorted(bad | letters.keys()):
        number = letters[place]
        if number == 0:
            said = f"the bad record {place} has none"
        elif place not in bad:
            said = f"the good record {place} has one"
        elif number > 1 and place[0] in _EXACTLY_ONCE:
            said = f"the bad record {place} has {number}"
        else:
            continue
        yield Violation("dead letter", said, queries.get(place, ""))
    for place in sorted(letters.keys() ^ set(history.dead_rows)):
        where = "the topic" if place in letters else "SQL"
        yield Violation(
            "dead letter", f"that of {place} is in {where} only", queries.get(place, "")
        )
