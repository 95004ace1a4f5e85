"""Which faults strike a schedule, and when: a function of the seed alone.

Invariant: the same seed and the same number of queries give the same faults; nothing here touches
a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

Kind = Literal["kill", "stop", "term", "join", "backend", "reset", "delay", "freeze", "cut"]
SERVICES = ("router", "worker", "learner", "judge")
SLOTS = ("0", "1")
REPLICAS = tuple(f"{service}-{slot}" for service in SERVICES for slot in SLOTS)
PROFILES = ("services", "groups", "servers", "network", "all")
# Longer than a member's session of 6 s, and longer than a transaction may take, 10 s.
_STOPS_S = (0.5, 1.0, 2.0, 2.0, 7.0, 11.0)
# Each schedule opens with one kill that strikes alone for a while, so that its end can be timed.
_OPENERS = ("router", "worker", "learner", "postgres", "kafka")
_OPENS_S = 1.0
_ALONE_S = {"kafka": 7.0}


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
    faults = [_opening(seed)]
    at_s = _OPENS_S + _ALONE_S.get(faults[0].victim, 4.0)
    turn = 5 * (seed // len(PROFILES))
    while at_s < seconds:
        is_own = rng.random() < _SHARES[profile]
        fault = (_FAULTS[profile] if is_own else _service)(rng, round(at_s, 2), turn)
        is_possible = _is_possible(fault, faults)
        faults += [fault] * is_possible
        turn += is_own and (is_possible or fault.kind == "join")
        at_s += 0.0 if rng.random() < 0.4 else rng.uniform(0.8, 2.0)
    vendor = _vendor(rng) if seed % 2 else ()
    return Schedule(seed, profile, tuple(faults), rng.choice((0.0, 0.02, 0.1)), vendor)


def _opening(seed: int) -> Fault:
    name = _OPENERS[(seed + 2 * (seed // len(PROFILES))) % len(_OPENERS)]
    return Fault("kill", f"{name}-{seed % 2}" if name in SERVICES else name, _OPENS_S)


def _service(rng: Random, at_s: float, _turn: int = 0) -> Fault:
    kind: Kind = rng.choices(("kill", "stop", "term"), (5, 3, 2))[0]
    lasts_s = rng.choice(_STOPS_S) if kind == "stop" else 0.0
    return Fault(kind, rng.choice(REPLICAS), at_s, lasts_s)


def _group(rng: Random, at_s: float, turn: int) -> Fault:
    """A third replica joins and leaves; each time another service's, or the vendor dies."""
    joining = (*SERVICES, "vendor")[turn % 5]
    if joining == "vendor":
        return Fault("kill", "vendor", at_s)
    return Fault("join", f"{joining}-2", at_s, rng.choice((3.0, 5.0)))


def _server(_rng: Random, at_s: float, turn: int) -> Fault:
    kind, victim, lasts_s = _SERVER_FAULTS[turn % len(_SERVER_FAULTS)]
    return Fault(kind, victim, at_s, lasts_s)


def _network(rng: Random, at_s: float, turn: int) -> Fault:
    kind, victim = _NETWORK_FAULTS[turn % len(_NETWORK_FAULTS)]
    return Fault(kind, victim, at_s, 0.0 if kind == "reset" else rng.choice((1.0, 2.0, 5.0)))


def _any(rng: Random, at_s: float, turn: int) -> Fault:
    return rng.choice((_group, _server, _network))(rng, at_s, turn)


_SERVER_FAULTS: tuple[tuple[Kind, str, float], ...] = (
    ("backend", "postgres", 0.0),
    ("kill", "kafka", 0.0),
    ("kill", "postgres", 0.0),
    ("stop", "postgres", 3.0),
    ("term", "postgres", 0.0),
    ("stop", "kafka", 3.0),
)
_NETWORK_FAULTS: tuple[tuple[Kind, str], ...] = (
    ("cut", "to-postgres"),
    ("freeze", "to-kafka"),
    ("reset", "to-postgres"),
    ("delay", "to-kafka"),
    ("cut", "to-kafka"),
    ("freeze", "to-postgres"),
    ("reset", "to-kafka"),
    ("delay", "to-postgres"),
)
_FAULTS = {
    "services": _service,
    "groups": _group,
    "servers": _server,
    "network": _network,
    "all": _any,
}
# Of the profile's own faults; the rest strikes single services.
_SHARES = {"services": 1.0, "groups": 0.6, "servers": 0.7, "network": 0.8, "all": 0.8}


def _is_possible(fault: Fault, others: Sequence[Fault]) -> bool:
    """The broker is struck once, a replica joins once, and nobody is struck while a fault lasts."""
    same = [one for one in others if one.victim == fault.victim]
    is_busy = any(fault.at_s <= one.ends_s for one in same)
    return not is_busy and not (same and (fault.victim == "kafka" or fault.kind == "join"))


def _vendor(rng: Random) -> tuple[tuple[str, float], ...]:
    kinds = ("server_error", "reset", "rate_limited", "hang", "truncated", "refusal")
    return tuple((kind, 0.02) for kind in rng.sample(kinds, 3))
