"""One tiny call to each of some arms, by the code that workers call vendors with.

Invariant: every arm gets at most one request, all at once, and each ends within `TIMEOUT_S`; what a
vendor says is shown without secrets, since providers black them out.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Attempt, Generation, Model
from metallm_stream.providers import Answer, Provider, ProviderFailure, cost_usd, open_provider
from metallm_stream.providers.attempts import attempt
from metallm_stream.providers.rate_headers import RateLimits
from metallm_stream.serve.surroundings import utc_now
from metallm_stream.serve.vendors import provider_settings
from metallm_stream.settings import Settings

PROMPT = "Reply with the word OK."
TIMEOUT_S = 30.0
_LONGEST = Generation(max_output_tokens=256)  # models that think first need some
_PROMPT_TOKENS = 32  # a generous guess, for all tokenizers


@dataclass(frozen=True, slots=True)
class Probe:
    """How one arm answered; without an attempt, its provider could not be opened.

    Attributes
    ----------
    failure
        Kind and reason, or None if the arm answered.
    """

    model: Model
    attempt: Attempt | None = None
    limits: RateLimits | None = None
    failure: tuple[str, str] | None = None


def dearest_usd(model: Model) -> float | None:
    """What a probe of this arm may cost at most, or None if nobody knows its price."""
    longest = Answer("", input_tokens=_PROMPT_TOKENS, output_tokens=_LONGEST.max_output_tokens)
    return cost_usd(model, longest)


def probe(settings: Settings, models: Sequence[Model]) -> list[Probe]:
    """Ask every arm, each by the provider that the settings have for it; in the same order."""
    return asyncio.run(_probe(settings, models))


async def _probe(settings: Settings, models: Sequence[Model]) -> list[Probe]:
    by_provider: dict[str, list[Model]] = defaultdict(list)
    for model in models:
        by_provider[model.provider].append(model)
    probed = await asyncio.gather(
        *(_of_provider(settings, name, arms) for name, arms in by_provider.items())
    )
    by_arm = {one.model.arm: one for several in probed for one in several}
    return [by_arm[model.arm] for model in models]


async def _of_provider(settings: Settings, name: str, models: Sequence[Model]) -> list[Probe]:
    try:
        provider = open_provider(provider_settings(settings, name, max_connections=len(models)))
    except ConfigurationError as exc:
        return [Probe(model, failure=("configuration", str(exc))) for model in models]
    try:
        return await asyncio.gather(*(_of_arm(provider, model) for model in models))
    finally:
        await provider.close()


async def _of_arm(provider: Provider, model: Model) -> Probe:
    started_at, began_s = utc_now(), time.monotonic()
    ended: Answer | ProviderFailure
    try:
        ended = await provider.complete(
            model,
            [{"role": "user", "content": PROMPT}],
            _LONGEST,
            timeout_s=TIMEOUT_S,
            idempotency_key=uuid.uuid4().hex,
        )
    except ProviderFailure as exc:
        ended = exc
    tried = attempt(model, ended, started_at=started_at, latency_s=time.monotonic() - began_s)
    failure = None if tried.failure is None else (tried.failure.kind, tried.failure.message)
    return Probe(model, tried, ended.limits, failure)
