"""A worker from its settings; nothing starts before its surroundings were checked."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
from pydantic import SecretStr, ValidationError

from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Call, Result
from metallm_stream.judge import Templates, load, parse, prompt, shipped, template
from metallm_stream.kafka import check
from metallm_stream.providers import (
    AnswerSettings,
    Circuits,
    Forward,
    Guard,
    Provider,
    ProviderSettings,
    Shares,
    Spending,
    SystemClock,
    answer_call,
    open_provider,
)
from metallm_stream.serve.surroundings import connection, names, utc_now
from metallm_stream.serve.worker import Answerer, Worker
from metallm_stream.settings import Settings


def open_worker(settings: Settings, provider: str) -> Worker:
    """A worker for one configured provider, its surroundings checked."""
    if provider not in settings.providers:
        known = ", ".join(sorted(settings.providers)) or "none"
        raise ConfigurationError(
            f"provider {provider!r} is not configured (there are: {known}): "
            f"set METALLM_PROVIDERS__{provider.upper()}__WIRE"
        )
    kafka = connection(settings, f"metallm-worker-{provider}")
    check(kafka.admin(), names(settings), (provider,))
    clock = SystemClock()
    circuits = Circuits(provider, settings.slot, settings.worker.circuit_share, clock)
    spending = _spending(settings, provider, clock)
    entry = settings.providers[provider]
    shares = Shares(entry.requests_per_minute, entry.tokens_per_minute)
    templates = shipped() if settings.templates_dir is None else load(settings.templates_dir)
    answer = partial(
        answer_call,
        prompt=partial(prompt, templates=templates),
        parse=parse,
        settings=AnswerSettings(
            attempt_timeout_s=settings.worker.attempt_timeout_s,
            tries_per_arm=settings.worker.tries,
            retry_budget_s=settings.worker.budget_s,
            backoff_s=settings.worker.backoff_s,
            share_wait_s=settings.worker.share_wait_s,
            hedge_after_s=settings.worker.hedge_after_s,
        ),
        clock=clock,
        rng=np.random.default_rng(),
        guard=Guard(circuits, shares, settings.worker.concurrency, clock, spending),
    )
    return Worker(
        kafka,
        names(settings),
        provider,
        partial(open_provider, _provider(settings, provider)),
        partial(_marked, answer, templates),
        slot=settings.slot,
        concurrency=settings.worker.concurrency,
        commit_interval_s=settings.worker.commit_interval_s,
        drain_s=settings.worker.drain_s,
        now=utc_now,
        health=circuits.news,
        spending=spending,
    )


def _spending(settings: Settings, provider: str, clock: SystemClock) -> Spending | None:
    cap_usd, per = settings.worker.spend_cap_usd, settings.worker.spend_cap_per
    return None if cap_usd is None else Spending(provider, settings.slot, cap_usd, per, clock)


async def _marked(
    answer: Answerer, templates: Templates, call: Call, provider: Provider
) -> Result | Forward:
    """What a call came to, a result with the template that its prompt was made from."""
    outcome = await answer(call, provider)
    if isinstance(outcome, Forward):
        return outcome
    return outcome.model_copy(update={"template": template(call.query, templates).mark})


def _provider(settings: Settings, name: str) -> ProviderSettings:
    entry = settings.providers[name]
    key = os.environ.get(entry.api_key_env, "") if entry.api_key_env else None
    if key == "":
        raise ConfigurationError(
            f"provider {name!r} takes its key from {entry.api_key_env}, which is not set"
        )
    try:
        return ProviderSettings(
            name=name,
            wire=entry.wire,
            base_url=entry.base_url,
            region=entry.region,
            api_key=None if key is None else SecretStr(key),
            headers=dict(entry.headers),
            max_connections=settings.worker.concurrency,
        )
    except ValidationError as exc:
        raise ConfigurationError(f"provider {name!r}: {exc}") from None  # hides the inputs
