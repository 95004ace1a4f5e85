"""From a call to its one result: tries, waits and falls to the next arm.

Invariant: every call ends here in exactly one `Result` or one `Forward`, within its deadline and
its budget of tries, and nothing that was tried is left out of the attempts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from pydantic_core import to_json

from metallm_stream.events import Attempt, Call, Failure, Model, Query, Result
from metallm_stream.providers.attempts import attempt, finish, storable
from metallm_stream.providers.base import Answer, Provider, ProviderFailure
from metallm_stream.providers.clock import Clock

Prompt = Callable[[Query], Sequence[Mapping[str, str]]]
Parse = Callable[[Query, str], str | None]


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
    """

    attempt_timeout_s: float = 60.0
    tries_per_arm: int = 3
    max_tries: int = 8
    retry_budget_s: float = 30.0
    backoff_s: float = 0.5
    max_backoff_s: float = 8.0
    max_text_bytes: int = 400_000


@dataclass(frozen=True, slots=True)
class Forward:
    """The call goes on at another provider, attempts so far included."""

    call: Call

    @property
    def provider(self) -> str:
        """The provider that the call now belongs to."""
        return self.call.ranking[0].provider


async def answer_call(
    call: Call,
    provider: Provider,
    *,
    prompt: Prompt,
    parse: Parse,
    settings: AnswerSettings,
    clock: Clock,
    rng: np.random.Generator,
) -> Result | Forward:
    """Try the arms of `call.ranking` in order until one answers.

    Timeouts, broken connections, rate limits, server errors and malformed answers are retried on
    the same arm within the budget, never before the provider's Retry-After; everything else, and
    a wait that does not fit, goes to the next arm at once. An arm of another provider ends the
    work here with a `Forward`. Trouble at the provider never raises.
    """
    messages = prompt(call.query)
    tries = _Tries(call, provider, messages=messages, settings=settings, clock=clock, rng=rng)
    for position, model in enumerate(call.ranking):
        if tries.late or tries.spent:
            break
        if model.provider != provider.name:
            return Forward(
                call.model_copy(
                    update={"ranking": call.ranking[position:], "attempts": tuple(tries.attempts)}
                )
            )
        text = await tries.ask(model)
        if text is not None:
            prediction = parse(call.query, text)
            return finish(
                call, tries.attempts, finished_at=clock.now(), text=text, prediction=prediction
            )
    return finish(call, tries.attempts, finished_at=clock.now(), failure=tries.failure())


def idempotency_key(call_id: str, arm: str) -> str:
    """The key of one call at one arm: the same for every try and every replay, 64 hex digits."""
    return hashlib.sha256(f"{call_id}\x00{arm}".encode()).hexdigest()


class _Tries:
    """The tries of one call at one provider, and what they have used up."""

    def __init__(
        self,
        call: Call,
        provider: Provider,
        *,
        messages: Sequence[Mapping[str, str]],
        settings: AnswerSettings,
        clock: Clock,
        rng: np.random.Generator,
    ) -> None:
        self.attempts: list[Attempt] = list(call.attempts)
        self._call = call
        self._provider = provider
        self._messages = messages
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._began_s = clock.monotonic()

    @property
    def late(self) -> bool:
        """Whether the query's deadline has passed."""
        return self._left_s() <= 0

    @property
    def spent(self) -> bool:
        """Whether no further try is allowed."""
        return len(self.attempts) >= self._settings.max_tries

    async def ask(self, model: Model) -> str | None:
        """The arm's answer after one or more tries, or `None` when the next arm is to be asked."""
        for number in range(1, self._settings.tries_per_arm + 1):
            ended = await self._try_once(model)
            if isinstance(ended, str):
                return ended
            wait_s = self._wait_s(ended, number)
            again = ended.retriable and number < self._settings.tries_per_arm
            if not again or self.spent or not self._fits(wait_s):
                return None
            await self._clock.sleep(wait_s)
        return None

    def failure(self) -> Failure:
        """Why nobody answered."""
        last = self.attempts[-1].failure if self.attempts else None
        said = "" if last is None else f"; the last said {last.kind}: {last.message}"
        if self.late:
            return Failure(
                kind="deadline",
                message=f"the query's deadline passed after {len(self.attempts)} attempts{said}",
            )
        kind = "no_arm" if last is None else last.kind
        arms = len({one.arm for one in self.attempts})
        return Failure(
            kind=kind,
            message=f"no answer in {len(self.attempts)} attempts at {arms} arms{said}",
        )

    async def _try_once(self, model: Model) -> str | ProviderFailure:
        started_at, began_s = self._clock.now(), self._clock.monotonic()
        left_s = self._left_s()
        ended: Answer | ProviderFailure
        try:
            ended = await self._provider.complete(
                model,
                self._messages,
                self._call.query.generation,
                timeout_s=min(self._settings.attempt_timeout_s, max(left_s, 0.001)),
                idempotency_key=idempotency_key(self._call.call_id, model.arm),
            )
        except ProviderFailure as exc:
            ended = exc
        if isinstance(ended, Answer):
            ended = self._unless_too_long(ended)
        elif ended.kind == "timeout" and left_s < self._settings.attempt_timeout_s:
            ended = ProviderFailure("deadline", ended.message, retriable=False)
        latency_s = max(0.0, self._clock.monotonic() - began_s)
        self.attempts.append(attempt(model, ended, started_at=started_at, latency_s=latency_s))
        return storable(ended.text) if isinstance(ended, Answer) else ended

    def _unless_too_long(self, answer: Answer) -> Answer | ProviderFailure:
        size = len(to_json(storable(answer.text)))
        limit = self._settings.max_text_bytes
        if size <= limit:
            return answer
        return ProviderFailure(
            "malformed_answer",
            f"the answer takes {size} bytes where a record holds {limit}: set max_output_tokens",
            retriable=False,
            request_id=answer.request_id,
            billed=answer,
        )

    def _wait_s(self, failure: ProviderFailure, number: int) -> float:
        limit_s = min(self._settings.max_backoff_s, self._settings.backoff_s * 2 ** (number - 1))
        return (failure.retry_after_s or 0.0) + float(self._rng.uniform(0.0, limit_s))

    def _fits(self, wait_s: float) -> bool:
        used_s = self._clock.monotonic() - self._began_s
        return used_s + wait_s <= self._settings.retry_budget_s and wait_s < self._left_s()

    def _left_s(self) -> float:
        deadline_at = self._call.deadline_at
        if deadline_at is None:
            return float("inf")
        return (deadline_at - self._clock.now()) / timedelta(seconds=1)
