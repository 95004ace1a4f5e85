"""From a call to its one result: tries, waits and falls to the next arm.

Invariant: every call ends here in exactly one `Result` or one `Forward`, within its deadline and
its budget of tries, and nothing that was tried is left out of the attempts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metallm_stream.events import Call, Failure, Model, Query, Result
from metallm_stream.providers.attempts import finish
from metallm_stream.providers.base import Provider
from metallm_stream.providers.clock import Clock
from metallm_stream.providers.guard import Guard
from metallm_stream.providers.tries import AnswerSettings, Tries

_TOO_SMALL = Failure(
    kind="context_too_long", message="its context window is no larger than one that was too small"
)

Prompt = Callable[[Query], Sequence[Mapping[str, str]]]
Parse = Callable[[Query, str], str | None]


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
    guard: Guard,
) -> Result | Forward:
    """Try the arms of `call.ranking` in order until one answers.

    Timeouts, broken connections, rate limits, server errors and malformed answers are retried on
    the same arm within the budget, never before the provider's Retry-After; everything else, and a
    wait that does not fit, goes to the next arm at once. An arm that the `guard` does not let in is
    skipped; if in the end nobody was left to ask, one with an open circuit is asked all the same.
    An arm of another provider ends the work here with a `Forward`. Trouble at the provider never
    raises.
    """
    messages = prompt(call.query)
    tries = Tries(
        call, provider, messages=messages, settings=settings, clock=clock, rng=rng, guard=guard
    )
    left = list(call.ranking)
    while left and not tries.over:
        model = left.pop(0)
        if not tries.fits(model):
            tries.pass_over(model, _TOO_SMALL)
        elif model.provider != provider.name:
            return _forward(call, tries, [model, *left])
        elif settings.hedge_after_s is None or not _is_rival(left, provider, tries):
            await tries.ask(model, is_last=not left)
        elif await tries.race(model, left[0], is_last=len(left) == 1):
            left.pop(0)
    if not tries.over and tries.shut_out is not None:
        await tries.ask(tries.shut_out, is_last=True, at_any_rate=True)
    text = tries.answer
    return finish(
        call,
        tries.attempts,
        skipped=tries.skipped,
        finished_at=clock.now(),
        arm=tries.answered_by,
        text=text,
        prediction=None if text is None else parse(call.query, text),
        failure=tries.failure() if text is None else None,
    )


def _is_rival(left: Sequence[Model], provider: Provider, tries: Tries) -> bool:
    """Whether the next arm can be asked beside the present one."""
    return bool(left) and left[0].provider == provider.name and tries.fits(left[0])


def _forward(call: Call, tries: Tries, left: Sequence[Model]) -> Forward:
    for model in left:
        if not tries.fits(model):
            tries.pass_over(model, _TOO_SMALL)
    changes = {
        "ranking": tuple(filter(tries.fits, left)),
        "attempts": tuple(tries.attempts),
        "skipped": tuple(tries.skipped),
    }
    return Forward(call.model_copy(update=changes))
