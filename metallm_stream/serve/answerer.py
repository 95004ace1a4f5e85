"""How the calls of a worker or a judge are answered, by the settings of workers."""

from __future__ import annotations

from functools import partial

import numpy as np

from metallm_stream.judge import Templates, load, parse, shipped
from metallm_stream.judge import prompt as prompt_of
from metallm_stream.providers import (
    AnswerSettings,
    Circuits,
    Clock,
    Guard,
    Shares,
    Spending,
    answer_call,
)
from metallm_stream.serve.calls import Answerer, CallLimits
from metallm_stream.settings import Settings


def answerer(
    settings: Settings,
    provider: str,
    circuits: Circuits,
    spending: Spending | None,
    clock: Clock,
    *,
    templates: Templates,
    concurrency: int,
) -> Answerer:
    """Tries the arms of a call at a configured provider, within its limits and the cap."""
    entry, worker = settings.providers[provider], settings.worker
    shares = Shares(entry.requests_per_minute, entry.tokens_per_minute)
    return partial(
        answer_call,
        prompt=partial(prompt_of, templates=templates),
        parse=parse,
        settings=AnswerSettings(
            attempt_timeout_s=worker.attempt_timeout_s,
            tries_per_arm=worker.tries,
            retry_budget_s=worker.budget_s,
            backoff_s=worker.backoff_s,
            share_wait_s=worker.share_wait_s,
            hedge_after_s=worker.hedge_after_s,
        ),
        clock=clock,
        rng=np.random.default_rng(),
        guard=Guard(circuits, shares, concurrency, clock, spending),
    )


def call_limits(settings: Settings, concurrency: int) -> CallLimits:
    """So many calls at a time, and the waits of workers."""
    worker = settings.worker
    return CallLimits(concurrency, worker.commit_interval_s, worker.drain_s)


def templates_of(settings: Settings) -> Templates:
    """The prompts that the settings name, or those that come with the package."""
    return shipped() if settings.templates_dir is None else load(settings.templates_dir)
