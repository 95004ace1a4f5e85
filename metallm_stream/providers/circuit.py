"""Circuits: who has failed too often of late is left alone, but for a try now and then.

Invariant: an open circuit lets one try pass in each `RETRY_AFTER_S`, whatever became of the one
before, and closes at the first that is answered; so the end of an outage is noticed a few seconds
after it, also where a vendor that is down lets every try run into its timeout. A failure is seen
among the tries that began with it, ended or not, as errors come faster than answers, and timeouts
slower. Routers go on sending probes to an arm that is down, so one that nobody has asked for within
`IDLE_S` is in no catalogue any more, or there are no queries: its circuit closes, and opens again
if it must.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter, itemgetter
from typing import NamedTuple

from metallm_stream.events import ArmHealth, Model
from metallm_stream.providers.base import Answer, ProviderFailure
from metallm_stream.providers.clock import Clock

WINDOW = 20  # tries
WINDOW_S = 30.0
FEWEST = 10  # tries that a share is taken of: two of the first three may be bad luck
RETRY_AFTER_S = 1.0  # routers send probes half as often, so that none comes a moment too early
BEAT_S = 5.0
VALID_S = 15.0
IDLE_S = 60.0  # after so long without a try nothing is said of an arm
FORGOTTEN = f"nobody has asked for it for {IDLE_S:.0f} s"
LATE = 3.0  # a try cut off by its query's deadline failed if it took so many times the usual,
LATE_S = 5.0  # or so many seconds where the usual is not known
COLD_S = 20.0  # a try in flight of which that is not known counts as failed after so long
KEPT_S = 60.0  # a connection that breaks later than that is compared with few others

_FAILING = {"timeout", "connection", "server_error", "authentication", "malformed_answer"}
_SAYS_NOTHING = {"rate_limited", "superseded"}
_SAYS_NOTHING_OF_HOSTS = {"timeout", "deadline"}  # who waits may have a connection, or none


@dataclass(frozen=True, slots=True)
class Entry:
    """Why an arm may not be asked now, or None; and if it may, whether to see if it is up again."""

    barred: str | None = None
    is_probe: bool = False

    @property
    def is_open(self) -> bool:
        """Whether a circuit of the arm is open."""
        return self.is_probe or self.barred is not None


class Try(NamedTuple):
    """A try that has ended."""

    began_s: float
    ended_s: float
    failed: bool


_BEGAN = attrgetter("began_s")


@dataclass(slots=True)
class Circuit:
    """The recent tries of one arm, or of all arms of a provider.

    Times are seconds of a monotonic clock.

    Parameters
    ----------
    share
        It opens when this share of the recent tries, or of ten if they are fewer, has failed.
    since_s
        When it opened or closed last.
    tries
        The recent ones that have ended, by when they began.
    in_flight
        When those began that have not ended yet, in order.
    """

    share: float
    since_s: float
    is_open: bool = False
    closed_s: float = -math.inf
    retry_at_s: float = 0.0
    reason: str = ""
    tries: list[Try] = field(default_factory=list)
    in_flight: list[float] = field(default_factory=list)

    def admits(self, now_s: float) -> bool:
        """Whether a try may be made now."""
        return not self.is_open or now_s >= self.retry_at_s

    def enter(self, now_s: float) -> None:
        """Note that a try is made."""
        self.retry_at_s = now_s + RETRY_AFTER_S

    def begin(self, began_s: float) -> None:
        """Note that a try is in flight."""
        insort(self.in_flight, began_s)

    def end(self, began_s: float) -> None:
        """Note that a try is in flight no more."""
        del self.in_flight[bisect_left(self.in_flight, began_s)]

    def note(self, reason: str | None, began_s: float, now_s: float, late_s: float) -> bool:
        """Note how a try ended, `None` for well; True if the circuit opened or closed by it.

        Tries that are in flight for longer than `late_s` count as failed: none, if it is infinite.
        """
        if self.is_open:
            if reason is not None or began_s < self.since_s:
                return False
            self.close(now_s)
            return True
        if reason is not None and began_s < self.closed_s:
            return False  # it tells of the outage that is over
        insort(self.tries, Try(began_s, now_s, reason is not None), key=_BEGAN)
        kept_s = late_s if late_s < math.inf else KEPT_S
        del self.tries[: max(0, self._begun(now_s - kept_s) - WINDOW)]
        if reason is None:
            return False
        # Of those before it: who fails. Of those that have had their time: who hangs.
        for until_s in {max(began_s, now_s - late_s), now_s - late_s}:
            recent = self._recent(until_s, now_s, late_s)
            failed = sum(recent)
            if failed >= self.share * max(len(recent), FEWEST):
                self.is_open, self.since_s, self.retry_at_s = True, now_s, now_s + RETRY_AFTER_S
                self.reason = f"{failed} of {len(recent)} tries failed; the last: {reason}"[:500]
                return True
        return False

    def close(self, now_s: float) -> None:
        """Forget what has failed so far."""
        self.is_open, self.since_s, self.closed_s = False, now_s, now_s
        self.tries.clear()

    def _recent(self, until_s: float, now_s: float, late_s: float) -> list[bool]:
        """Whether each of the last tries that had begun by then has failed."""
        ended = self.tries[: self._begun(until_s)][-WINDOW:]
        waiting = self.in_flight[: bisect_right(self.in_flight, until_s)][-WINDOW:]
        told = [(one.began_s, one.failed) for one in ended if now_s - one.ended_s <= WINDOW_S]
        told += [(began_s, now_s - began_s > late_s) for began_s in waiting]
        return [has_failed for _, has_failed in sorted(told, key=itemgetter(0))[-WINDOW:]]

    def _begun(self, until_s: float) -> int:
        """How many of the ended tries had begun by then."""
        return bisect_right(self.tries, until_s, key=_BEGAN)


class Circuits:
    """The circuits of one worker: one an arm, and one for its provider's connections.

    Calls end in one thread and another reads what is to be published, so a lock is held.

    Parameters
    ----------
    provider, slot
        Whose worker this is, and which of its replicas.
    share
        Of an arm's recent tries, or of the connections to the provider, that must fail.
    clock
        Time.
    """

    def __init__(self, provider: str, slot: str, share: float, clock: Clock) -> None:
        self._provider = provider
        self._slot = slot
        self._share = share
        self._clock = clock
        self._lock = threading.Lock()
        self._host = Circuit(share, clock.monotonic())
        self._arms: dict[str, Circuit] = {}
        self._usual_s: dict[str, float] = {}
        self._used_s: dict[str | None, float] = {}
        self._asked_s: dict[str | None, float] = {}
        self._changed: set[str | None] = set()
        self._beat_s = 0.0

    def enter(self, model: Model) -> Entry:
        """Whether the arm may be asked now, which counts as a try."""
        now_s = self._clock.monotonic()
        with self._lock:
            self._asked_s[model.arm] = self._asked_s[None] = now_s
            arm = self._arm(model.arm, now_s)
            for circuit in (arm, self._host):
                if not circuit.admits(now_s):
                    return Entry(barred=circuit.reason)
            arm.enter(now_s)
            self._host.enter(now_s)
            return Entry(is_probe=arm.is_open or self._host.is_open)

    def begin(self, model: Model, began_s: float) -> None:
        """Note that a try of the arm is in flight; `leave` has to follow."""
        with self._lock:
            for circuit in (self._arm(model.arm, began_s), self._host):
                circuit.begin(began_s)

    def leave(self, model: Model, ended: Answer | ProviderFailure | None, began_s: float) -> None:
        """Note how a try ended, None if it was broken off."""
        now_s = self._clock.monotonic()
        with self._lock:
            for circuit in (self._arms[model.arm], self._host):
                circuit.end(began_s)
            if ended is None:
                return
            reason = self._reason(model.arm, ended, now_s - began_s)
            kind = None if isinstance(ended, Answer) else ended.kind
            if reason is None and kind in _SAYS_NOTHING | {"deadline"}:
                return
            broken = reason if kind == "connection" else None
            usual_s = self._usual_s.get(model.arm)
            late_s = COLD_S if usual_s is None else max(LATE_S, LATE * usual_s)
            self._note(model.arm, reason, began_s, late_s)
            if kind not in _SAYS_NOTHING_OF_HOSTS:
                self._note(None, broken, began_s, math.inf)

    def _note(self, name: str | None, reason: str | None, began_s: float, late_s: float) -> None:
        now_s = self._used_s[name] = self._clock.monotonic()
        if self._circuit(name).note(reason, began_s, now_s, late_s):
            self._changed.add(name)

    def news(self) -> list[ArmHealth]:
        """What is to be published now: what has changed, and everything in use every 5 s.

        What is forgotten is told once more, as closed and with the reason.
        """
        now_s, now = self._clock.monotonic(), self._clock.now()
        with self._lock:
            forgotten: set[str | None] = set()
            if now_s - self._beat_s >= BEAT_S:
                self._beat_s = now_s
                forgotten = {name for name in self._used_s if self._is_idle(name, now_s)}
                for name in forgotten:
                    self._circuit(name).close(now_s)
                self._changed |= forgotten | {
                    name
                    for name, used_s in self._used_s.items()
                    if now_s - used_s < IDLE_S or self._circuit(name).is_open
                }
            told = [self._record(name, now_s, now) for name in self._changed - forgotten]
            told += [self._record(name, now_s, now, FORGOTTEN) for name in forgotten]
            self._changed.clear()
        return told

    def _is_idle(self, name: str | None, now_s: float) -> bool:
        """Whether a circuit is open, and nobody has asked for it for long."""
        circuit = self._circuit(name)
        if not circuit.is_open or circuit.in_flight:
            return False
        return now_s - max(circuit.since_s, self._asked_s.get(name, -math.inf)) >= IDLE_S

    def _arm(self, arm: str, now_s: float) -> Circuit:
        return self._arms.setdefault(arm, Circuit(self._share, now_s))

    def _circuit(self, name: str | None) -> Circuit:
        return self._host if name is None else self._arms[name]

    def _record(
        self, name: str | None, now_s: float, now: datetime, why_closed: str | None = None
    ) -> ArmHealth:
        circuit = self._circuit(name)
        retry_at = now + timedelta(seconds=circuit.retry_at_s - now_s)
        return ArmHealth(
            provider=self._provider,
            arm=name,
            slot=self._slot,
            state="open" if circuit.is_open else "closed",
            reason=circuit.reason if circuit.is_open else why_closed,
            since=now - timedelta(seconds=now_s - circuit.since_s),
            retry_at=retry_at if circuit.is_open else None,
            valid_until=now + timedelta(seconds=VALID_S),
        )

    def _reason(self, arm: str, ended: Answer | ProviderFailure, latency_s: float) -> str | None:
        """Why the try counts as failed, or None."""
        usual_s = self._usual_s.get(arm)
        if isinstance(ended, Answer):
            self._usual_s[arm] = latency_s if usual_s is None else 0.9 * usual_s + 0.1 * latency_s
            return None
        fails = ended.kind in _FAILING or (ended.kind == "rate_limited" and not ended.retriable)
        late_s = LATE_S if usual_s is None else LATE * usual_s
        too_late = ended.kind == "deadline" and latency_s > late_s
        return f"{ended.kind}: {ended.message}" if fails or too_late else None
