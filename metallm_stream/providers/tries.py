"""The tries of one call at one provider: retries, waits, and what they have used up.

Invariant: nothing that was tried is left out of the attempts, and no try begins after the query's
deadline or beyond the budget of tries.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from metallm_stream.errors import counted
from metallm_stream.events import Attempt, Call, Failure, Model, Skip
from metallm_stream.providers.attempts import attempt, storable, unless_too_long
from metallm_stream.providers.base import Answer, Provider, ProviderFailure
from metallm_stream.providers.clock import Clock
from metallm_stream.providers.guard import Guard, Pass
from metallm_stream.providers.pricing import at_most_usd
from metallm_stream.providers.turns import output_limit

_CHARACTERS_A_TOKEN = 4
_SUPERSEDED = ProviderFailure("superseded", "another arm answered first", retriable=False)


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """How long and how often a call is tried.

    Parameters
    ----------
    attempt_timeout_s
        One try ends after this, or at the query's deadline if that is earlier.
    tries_per_arm
        Tries at one arm, the first included, before the next arm of the ranking is asked.
    max_tries
        Tries over the whole call, forwarded ones included.
    retry_budget_s
        No arm is tried again later than this after the call began at this provider; falling to
        the next arm is not bound by it.
    backoff_s
        The n-th retry of an arm waits a random time up to `backoff_s · 2^(n-1)` ("full jitter").
    max_backoff_s
        Upper limit of that random time.
    max_text_bytes
        A longer answer counts as malformed: text and prediction must fit into one record.
    share_wait_s
        How long a call waits for its share of an arm's rate limits before the next arm is asked.
    hedge_after_s
        The next arm of the same provider is asked as well when one takes longer; None: never.
    """

    attempt_timeout_s: float = 60.0
    tries_per_arm: int = 3
    max_tries: int = 8
    retry_budget_s: float = 30.0
    backoff_s: float = 0.5
    max_backoff_s: float = 8.0
    max_text_bytes: int = 400_000
    share_wait_s: float = 10.0
    hedge_after_s: float | None = None


def idempotency_key(call_id: str, arm: str) -> str:
    """The key of one call at one arm: the same for every try and every replay, 64 hex digits."""
    return hashlib.sha256(f"{call_id}\x00{arm}".encode()).hexdigest()


class Tries:
    """The tries of one call at one provider, and what they have used up.

    Attributes
    ----------
    attempts, skipped
        Every try, and every arm that was passed over; those before a forward first.
    answer, answered_by
        The text that came first, and its arm.
    shut_out
        The first arm that was not asked since its circuit is open.
    """

    def __init__(
        self,
        call: Call,
        provider: Provider,
        *,
        messages: Sequence[Mapping[str, str]],
        settings: AnswerSettings,
        clock: Clock,
        rng: np.random.Generator,
        guard: Guard,
    ) -> None:
        self.attempts: list[Attempt] = list(call.attempts)
        self.skipped: list[Skip] = list(call.skipped)
        self.answer: str | None = None
        self.answered_by: str | None = None
        self.shut_out: Model | None = None
        self._guard = guard
        self._tokens = _tokens(call, messages)
        self._bytes = sum(len(turn["content"].encode("utf-8", "replace")) for turn in messages)
        self._begun = len(call.attempts)
        self._too_small_tokens = 0
        self._call = call
        self._provider = provider
        self._messages = messages
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._began_s = clock.monotonic()

    @property
    def over(self) -> bool:
        """Whether no further arm is to be asked."""
        return self._is_settled or self._begun >= self._settings.max_tries

    def fits(self, model: Model) -> bool:
        """Whether the arm's context window is larger than one that was too small, if known."""
        return (model.context_window_tokens or math.inf) > self._too_small_tokens

    def pass_over(self, model: Model, reason: Failure) -> None:
        """Note that the arm is not asked."""
        self.skipped.append(Skip(arm=model.arm, at=self._clock.now(), reason=reason))

    async def ask(self, model: Model, *, is_last: bool, at_any_rate: bool = False) -> None:
        """Try the arm, once or more; an open circuit bars it unless `at_any_rate`.

        The last arm of a call has more patience for its share of a rate limit.
        """
        number = 0
        while not self.over:
            number += 1
            held = await self._enter(model, is_last=is_last, at_any_rate=at_any_rate)
            if isinstance(held, Failure):
                self.pass_over(model, held)
                if number == 1 and held.kind == "circuit_open" and self.shut_out is None:
                    self.shut_out = model
                return
            if self.over:  # by a rival, or while it waited
                self._guard.withdraw(held)
                return
            ended = await self._try_once(model, held)
            if isinstance(ended, str):
                if self.answer is None:
                    self.answer, self.answered_by = ended, model.arm
                return
            self._learn(model, ended)
            wait_s = self._wait_s(ended, number)
            again = ended.retriable and number < self._settings.tries_per_arm and not at_any_rate
            if not again or self.over or not self._fits(wait_s):
                return
            await self._clock.sleep(wait_s)

    async def race(self, first: Model, second: Model, *, is_last: bool) -> bool:
        """Ask an arm, and another as well when it takes longer than `hedge_after_s`.

        The first answer counts, and the other try is broken off. False if the first arm had ended,
        with or without an answer, before the second was asked.
        """
        tasks = [asyncio.create_task(self.ask(first, is_last=False))]
        try:
            await asyncio.wait(tasks, timeout=self._settings.hedge_after_s)
            if not tasks[0].done():
                tasks.append(asyncio.create_task(self.ask(second, is_last=is_last)))
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if not self._is_settled:
                    await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled():
                task.result()
        return len(tasks) == 2

    async def _enter(self, model: Model, *, is_last: bool, at_any_rate: bool) -> Pass | Failure:
        settings = self._settings
        longest_s = settings.retry_budget_s if is_last else settings.share_wait_s
        return await self._guard.enter(
            model,
            tokens=self._tokens,
            patience_s=min(longest_s, self._left_s()),
            at_any_rate=at_any_rate,
        )

    def _learn(self, model: Model, failed: ProviderFailure) -> None:
        """What the failure says of the arms to come."""
        if failed.kind == "context_too_long":
            window = model.context_window_tokens or 0
            self._too_small_tokens = max(self._too_small_tokens, window)

    def failure(self) -> Failure:
        """Why nobody answered."""
        failed = [one.failure for one in self.attempts if one.failure is not None]
        told = [one for one in failed if one.kind != "superseded"]
        last = told[-1] if told else None
        if last is None and self.skipped:
            last = self.skipped[-1].reason
        said = "" if last is None else f"; the last said {last.kind}: {last.message}"
        if self._is_late:
            return Failure(
                kind="deadline",
                message="the query's deadline passed after "
                f"{counted(len(self.attempts), 'attempt')}{said}",
            )
        kind = "no_arm" if last is None else last.kind
        attempts = counted(len(self.attempts), "attempt")
        arms = counted(len({one.arm for one in self.attempts}), "arm")
        return Failure(kind=kind, message=f"no answer in {attempts} at {arms}{said}")

    async def _try_once(self, model: Model, held: Pass) -> str | ProviderFailure:
        self._begun += 1
        started_at, began_s = self._clock.now(), self._clock.monotonic()
        try:
            ended = await self._complete(model, self._left_s())
            limit = self._settings.max_text_bytes
            read = unless_too_long(ended, limit) if isinstance(ended, Answer) else ended
            costs = self._book(held, read, started_at, began_s)
        except asyncio.CancelledError:
            costs = self._book(held, _SUPERSEDED, started_at, began_s)
            self._guard.leave(held, None, *costs)
            raise
        except BaseException:
            self._guard.leave(held, None, None)
            raise
        self._guard.leave(held, ended, *costs)
        return storable(read.text) if isinstance(read, Answer) else read

    def _book(
        self, held: Pass, ended: Answer | ProviderFailure, started_at: datetime, began_s: float
    ) -> tuple[float | None, float | None]:
        """Add a try to the attempts; what it cost, and if nobody tells, what it costs at most."""
        model, latency_s = held.model, max(0.0, self._clock.monotonic() - began_s)
        booked = attempt(
            model, ended, started_at=started_at, latency_s=latency_s, is_probe=held.is_open
        )
        most_usd = None
        if booked.cost_usd is None:
            most_usd = self._at_most_usd(model, ended, started_at)
            booked = booked.model_copy(update={"at_most_usd": most_usd or None})
        self.attempts.append(booked)
        return booked.cost_usd, most_usd

    def _at_most_usd(
        self, model: Model, ended: Answer | ProviderFailure, at: datetime
    ) -> float | None:
        limit = output_limit(model, self._call.query.generation) or model.max_output_tokens
        return at_most_usd(model, ended, prompt_bytes=self._bytes, longest_tokens=limit or 0, at=at)

    async def _complete(self, model: Model, left_s: float) -> Answer | ProviderFailure:
        try:
            return await self._provider.complete(
                model,
                self._messages,
                self._call.query.generation,
                timeout_s=min(self._settings.attempt_timeout_s, max(left_s, 0.001)),
                idempotency_key=idempotency_key(self._call.call_id, model.arm),
            )
        except ProviderFailure as exc:
            if exc.kind == "timeout" and left_s < self._settings.attempt_timeout_s:
                return ProviderFailure("deadline", exc.message, retriable=False)
            return exc

    def _wait_s(self, failure: ProviderFailure, number: int) -> float:
        limit_s = min(self._settings.max_backoff_s, self._settings.backoff_s * 2 ** (number - 1))
        return (failure.retry_after_s or 0.0) + float(self._rng.uniform(0.0, limit_s))

    def _fits(self, wait_s: float) -> bool:
        used_s = self._clock.monotonic() - self._began_s
        return used_s + wait_s <= self._settings.retry_budget_s and wait_s < self._left_s()

    @property
    def _is_settled(self) -> bool:
        """Whether tries under way are of no use any more."""
        return self.answer is not None or self._is_late

    @property
    def _is_late(self) -> bool:
        return self._left_s() <= 0

    def _left_s(self) -> float:
        deadline_at = self._call.deadline_at
        if deadline_at is None:
            return float("inf")
        return (deadline_at - self._clock.now()) / timedelta(seconds=1)


def _tokens(call: Call, messages: Sequence[Mapping[str, str]]) -> float:
    """About how many tokens a try takes, as vendors count them beforehand."""
    generation = call.query.generation
    written = (generation.max_output_tokens or 0) if generation is not None else 0
    return sum(len(turn["content"]) for turn in messages) / _CHARACTERS_A_TOKEN + written
