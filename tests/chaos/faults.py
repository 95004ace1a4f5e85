"""Which faults strike a schedule, and when: a function of the seed alone.

Invariant: the same seed and the same number of queries give the same faults; nothing here touches
a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

Kind = Literal["kill", "stop", "term", "join", "backend", "reset", "delay", "freeze", "cut"]
SERVICES = ("router", "worker", "learner")
SLOTS = ("0", "1")
REPLICAS = tuple(f"{service}-{slot}" for service in SERVICES for slot in SLOTS)
PROFILES = ("services", "groups", "servers", "network", "all")
# Longer than a member's session of 6 s, and longer than a transaction may take, 10 s.
_STOPS_S = (0.5, 1.0, 2.0, 2.0, 7.0, 11.0)
_SETTLE_S = 2.0


@dataclass(frozen=True)
class Fault:
    """One fault: what is done to whom, when it begins and how long it lasts."""

    kind: Kind
    victim: str
    at_s: float
    lasts_s: float = 0.0

    @property
    def ends_s(self) -> float:
        """When it is over."""
        return self.at_s + self.lasts_s

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:g} s" if self.lasts_s else ""
        return f"{self.kind} {self.victim}{lasts}"


@dataclass(frozen=True)
class Schedule:
    """All that befalls one stream.

    Attributes
    ----------
    bad
        Share of queries and judgements that are repeated, and of rubbish beside them.
    vendor
        Rates of the vendor's own faults.
    """

    seed: int
    profile: str
    faults: tuple[Fault, ...]
    bad: float = 0.0
    vendor: tuple[tuple[str, float], ...] = ()

    @property
    def is_proxied(self) -> bool:
        """Whether the services reach Kafka and PostgreSQL through proxies."""
        return any(fault.kind in ("reset", "delay", "freeze", "cut") for fault in self.faults)

    @property
    def ends_s(self) -> float:
        """When the last fault is over."""
        return max((fault.ends_s for fault in self.faults), default=0.0)


def draw(seed: int, seconds: float) -> Schedule:
    """The schedule of a seed for a stream of so many seconds."""
    rng = Random(f"faults {seed}")
    profile = PROFILES[seed % len(PROFILES)]
    faults, at_s = [], _SETTLE_S
    while at_s < seconds:
        faults.append(_FAULTS[profile](rng, round(at_s, 2)))
        at_s += 0.0 if rng.random() < 0.25 else rng.uniform(2.0, 5.0)
    vendor = _vendor(rng) if seed % 2 else ()
    return Schedule(seed, profile, tuple(_possible(faults)), rng.choice((0.0, 0.02, 0.1)), vendor)


def _service(rng: Random, at_s: float) -> Fault:
    kind: Kind = rng.choices(("kill", "stop", "term"), (5, 3, 2))[0]
    lasts_s = rng.choice(_STOPS_S) if kind == "stop" else 0.0
    return Fault(kind, rng.choice(REPLICAS), at_s, lasts_s)


def _group(rng: Random, at_s: float) -> Fault:
    if rng.random() < 0.5:
        return _service(rng, at_s)
    return Fault("join", f"{rng.choice(SERVICES)}-{rng.randrange(2, 10**6)}", at_s, 4.0)


def _server(rng: Random, at_s: float) -> Fault:
    if rng.random() < 0.4:
        return _service(rng, at_s)
    if rng.random() < 0.5:
        kind: Kind = rng.choice(("kill", "stop"))
        return Fault(kind, "kafka", at_s, rng.choice((1.0, 3.0)) if kind == "stop" else 0.0)
    kind = rng.choice(("kill", "term", "stop", "backend"))
    return Fault(kind, "postgres", at_s, rng.choice((1.0, 3.0)) if kind == "stop" else 0.0)


def _network(rng: Random, at_s: float) -> Fault:
    if rng.random() < 0.3:
        return _service(rng, at_s)
    kind: Kind = rng.choice(("reset", "delay", "freeze", "cut"))
    lasts_s = 0.0 if kind == "reset" else rng.choice((1.0, 2.0, 5.0))
    return Fault(kind, rng.choice(("to-kafka", "to-postgres")), at_s, lasts_s)


def _any(rng: Random, at_s: float) -> Fault:
    return rng.choice((_service, _group, _server, _network))(rng, at_s)


_FAULTS = {
    "services": _service,
    "groups": _group,
    "servers": _server,
    "network": _network,
    "all": _any,
}


def _possible(faults: Sequence[Fault]) -> list[Fault]:
    """The broker dies once at most, and nobody is struck while stopped."""
    kept: list[Fault] = []
    for fault in faults:
        is_busy = any(one.victim == fault.victim and fault.at_s <= one.ends_s for one in kept)
        dies_again = fault.victim == "kafka" and any(one.victim == "kafka" for one in kept)
        if not is_busy and not dies_again:
            kept.append(replace(fault))
    return kept


def _vendor(rng: Random) -> tuple[tuple[str, float], ...]:
    kinds = ("server_error", "reset", "rate_limited", "hang", "truncated", "refusal")
    return tuple((kind, 0.02) for kind in rng.sample(kinds, 3))
