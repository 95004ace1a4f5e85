"""A worker from its settings; nothing starts before its surroundings were checked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from metallm_stream.events import Call, Case, Result
from metallm_stream.judge import Templates, case_of, load, parse, prompt, shipped, template
from metallm_stream.kafka import check
from metallm_stream.providers import (
    AnswerSettings,
    Circuits,
    Forward,
    Guard,
    Provider,
    Shares,
    Spending,
    SystemClock,
    answer_call,
    open_provider,
)
from metallm_stream.serve.calls import Answerer, CallLimits
from metallm_stream.serve.surroundings import connection, names, utc_now
from metallm_stream.serve.vendors import provider_settings
from metallm_stream.serve.worker import Worker
from metallm_stream.settings import Settings


def open_worker(settings: Settings, provider: str) -> Worker:
    """A worker for one configured provider, its surroundings checked."""
    vendor = provider_settings(settings, provider, max_connections=settings.worker.concurrency)
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
        partial(open_provider, vendor),
        partial(_marked, answer, templates),
        slot=settings.slot,
        limits=CallLimits(
            concurrency=settings.worker.concurrency,
            commit_interval_s=settings.worker.commit_interval_s,
            drain_s=settings.worker.drain_s,
        ),
        now=utc_now,
        health=circuits.news,
        spending=spending,
        draw=_draw(settings),
    )


def _draw(settings: Settings) -> Callable[[Call, Result], Case | None] | None:
    judge = settings.judge
    if judge.provider is None:
        return None
    return partial(case_of, share=judge.share, seed=judge.seed)


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
