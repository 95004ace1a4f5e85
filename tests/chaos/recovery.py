"""How long it takes until a stream flows again after a kill, as users see it.

What a service reads after its kill counts, and each partition for itself, since those of the
victim wait for its return: the last one to show the first of its records again says how long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.chaos.checker import History, Progress, Seen
from tests.chaos.faults import Fault

# How long it was quiet before the kill, and how soon after it a record must have come to count.
QUIET_S = 2.0
WITHIN_S = 2.0
Struck = tuple[float, Fault]
Arrivals = Mapping[tuple[str, int, int], float]

# What the victim reads, where its work shows, and who else could hold that up.
_SHOWN: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "router": ("queries", "decisions", ("router", "kafka", "to")),
    "worker": ("calls", "results", ("worker", "kafka", "to")),
    "learner": ("decisions", "", ("learner", "kafka", "postgres", "to")),
    "kafka": ("queries", "results", ("router", "worker", "kafka", "to")),
    "postgres": ("decisions", "", ("learner", "kafka", "postgres", "to")),
}


def recoveries(
    history: History, arrivals: Arrivals, struck: Sequence[Struck]
) -> dict[str, list[float]]:
    """Seconds until it flowed again, by service or server, of kills that nothing else disturbed."""
    found: dict[str, list[float]] = {}
    for at_s, fault in struck:
        name = _name(fault)
        if fault.kind == "kill" and name in _SHOWN:
            back_s = _flows_again(history, arrivals, at_s, name)
            if back_s is not None and _is_alone(at_s, back_s, fault, struck):
                found.setdefault(name, []).append(back_s - at_s)
    return found


def _name(fault: Fault) -> str:
    return fault.victim.partition("-")[0]


def _is_alone(at_s: float, back_s: float, fault: Fault, struck: Sequence[Struck]) -> bool:
    disturbing = _SHOWN[_name(fault)][2]
    return not any(
        other is not fault
        and _name(other) in disturbing
        and other_s <= back_s
        and other_s + other.lasts_s >= at_s - QUIET_S
        for other_s, other in struck
    )


def _flows_again(history: History, arrivals: Arrivals, at_s: float, name: str) -> float | None:
    """When each partition that got a record soon after the kill has shown one of them."""
    reads, shows, _ = _SHOWN[name]
    shown = _arrived(history, arrivals, shows) if shows else _learned(history)
    first: dict[int, float] = {}
    for item in history.of(reads):
        if at_s < item.at_s <= at_s + WITHIN_S and item.query_id in shown:
            came_s = shown[item.query_id]
            first[item.partition] = min(first.get(item.partition, came_s), came_s)
    return max(first.values(), default=None)


def _arrived(history: History, arrivals: Arrivals, topic: str) -> dict[str, float]:
    return {
        item.query_id: arrivals[item.place] for item in history.of(topic) if item.place in arrivals
    }


def _learned(history: History) -> dict[str, float]:
    """When the decision of each query was in SQL."""
    steps: dict[str, list[Progress]] = {}
    for item in history.progress:
        if item.whose == "learner":
            steps.setdefault(item.where, []).append(item)
    passed = ((item.query_id, _passed(item, steps)) for item in history.of("decisions"))
    return {query_id: at_s for query_id, at_s in passed if at_s is not None}


def _passed(item: Seen, steps: Mapping[str, Sequence[Progress]]) -> float | None:
    own = steps.get(f"{item.topic}[{item.partition}]", ())
    return next((step.at_s for step in own if step.position > item.offset), None)
