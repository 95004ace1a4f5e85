"""A worker from its settings; nothing starts before its surroundings were checked."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
from pydantic import SecretStr, ValidationError

from metallm_stream.errors import ConfigurationError
from metallm_stream.judge import parse, prompt
from metallm_stream.kafka import check
from metallm_stream.providers import (
    AnswerSettings,
    Circuits,
    Guard,
    ProviderSettings,
    Shares,
    Spending,
    SystemClock,
    answer_call,
    open_provider,
)
from metallm_stream.serve.surroundings import connection, names, utc_now
from metallm_stream.serve.worker import Worker
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
    answer = partial(
        answer_call,
        prompt=prompt,
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
        answer,
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
