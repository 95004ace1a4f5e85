"""What stands before every try of one worker: circuits, rate limits, lanes, a cap on spending.

Invariant: every try that was let in leaves again, however it ends, and what it taught is used by
all calls of the worker; what was not let in after all has used up nothing. A probe through an open
circuit takes no lane: probes that hang would hold all of them, and the end of the outage would be
noticed when they run into their timeout.
"""

from __future__ import annotations

from dataclasses import dataclass

from metallm_stream.events import Failure, Model
from metallm_stream.providers.base import Answer, ProviderFailure
from metallm_stream.providers.circuit import Circuits, Entry
from metallm_stream.providers.clock import Clock
from metallm_stream.providers.lanes import Lanes
from metallm_stream.providers.shares import Share, Shares
from metallm_stream.providers.spending import Spending

_OVERLOADED = {"rate_limited", "timeout"}


@dataclass(frozen=True, slots=True)
class Pass:
    """What one try was let in with, through an open circuit or not; a probe has no lanes."""

    model: Model
    share: Share
    lanes: Lanes | None
    began_s: float
    is_open: bool


class Guard:
    """Shared by all calls of a worker.

    Parameters
    ----------
    circuits, shares
        The circuits of the provider's arms, and its rate limits.
    concurrency
        Calls of one arm in flight, at most.
    clock
        Time.
    spending
        The cap on what is spent, if there is one.
    """

    def __init__(
        self,
        circuits: Circuits,
        shares: Shares,
        concurrency: int,
        clock: Clock,
        spending: Spending | None = None,
    ) -> None:
        self._circuits = circuits
        self._spending = spending
        self._shares = shares
        self._concurrency = concurrency
        self._clock = clock
        self._lanes: dict[str, Lanes] = {}

    async def enter(
        self, model: Model, *, tokens: float, patience_s: float, at_any_rate: bool = False
    ) -> Pass | Failure:
        """Let a try of about so many tokens in, within `patience_s`; or say why not.

        An open circuit is passed `at_any_rate`.
        """
        entry = self._circuits.enter(model)
        if entry.barred is not None and not at_any_rate:
            return Failure(kind="circuit_open", message=entry.barred)
        held = await self._wait(model, tokens, patience_s, entry)
        if isinstance(held, Pass) and self._spending is not None:
            reason = self._spending.enter(model)
            if reason is not None:
                self._put_back(held)
                return Failure(kind="spend_cap", message=reason)
        if isinstance(held, Pass):
            self._circuits.begin(model, held.began_s)
        return held

    async def _wait(
        self, model: Model, tokens: float, patience_s: float, entry: Entry
    ) -> Pass | Failure:
        now_s = self._clock.monotonic()
        wait_s = self._shares.wait_s(model.arm, tokens, now_s)
        if wait_s > patience_s:
            return _busy(f"its rate limit leaves no share for {wait_s:.3g} s")
        share = self._shares.take(model.arm, tokens, now_s)
        lanes = None if entry.is_probe else self._lanes_of(model.arm)
        try:
            if wait_s > 0:
                await self._clock.sleep(wait_s)
            has_lane = lanes is None or await lanes.enter(patience_s - wait_s)
        except BaseException:
            self._shares.give_back(share)
            raise
        if lanes is not None and not has_lane:
            self._shares.give_back(share)
            return _busy(f"{int(lanes.limit)} calls are in flight, as many as it bears")
        return Pass(model, share, lanes, self._clock.monotonic(), entry.is_open)

    def withdraw(self, held: Pass) -> None:
        """Take back a try that was let in and does not begin."""
        self._put_back(held)
        self._circuits.leave(held.model, None, held.began_s)
        if self._spending is not None:
            self._spending.leave(held.model.arm, None)

    def _put_back(self, held: Pass) -> None:
        _free_lane(held, None)
        self._shares.give_back(held.share)

    def _lanes_of(self, arm: str) -> Lanes:
        return self._lanes.setdefault(arm, Lanes(self._concurrency, self._clock))

    def leave(
        self,
        held: Pass,
        ended: Answer | ProviderFailure | None,
        cost_usd: float | None,
        at_most_usd: float | None = None,
    ) -> None:
        """Note how a try ended, None if it was broken off, and what it cost, None if unknown.

        Towards the cap an answer of unknown cost costs `at_most_usd`, and a failure the arm's mean.
        """
        now_s = self._clock.monotonic()
        _free_lane(held, ended)
        if self._spending is not None:
            if cost_usd is None and isinstance(ended, Answer):
                cost_usd = at_most_usd or None
            self._spending.leave(held.model.arm, cost_usd, at_most_usd)
        self._circuits.leave(held.model, ended, held.began_s)
        if ended is not None:
            self._shares.settle(held.share, ended, now_s)


def _free_lane(held: Pass, ended: Answer | ProviderFailure | None) -> None:
    if held.lanes is not None:
        held.lanes.leave(
            began_s=held.began_s,
            answered=isinstance(ended, Answer),
            overloaded=isinstance(ended, ProviderFailure) and _is_overload(ended),
        )


def _busy(message: str) -> Failure:
    return Failure(kind="rate_limited", message=f"not asked: {message}")


def _is_overload(failed: ProviderFailure) -> bool:
    """Trouble that fewer calls at a time may mend."""
    asked_to_wait = failed.kind == "server_error" and failed.retry_after_s is not None
    return failed.retriable and (failed.kind in _OVERLOADED or asked_to_wait)
