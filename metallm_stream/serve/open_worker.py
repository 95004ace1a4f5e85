"""A worker from its settings; nothing starts before its surroundings were checked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from metallm_stream.events import Call, Case, Result
from metallm_stream.judge import Templates, case_of, template
from metallm_stream.kafka import check, require_rights
from metallm_stream.providers import (
    Circuits,
    Forward,
    Provider,
    Spending,
    SystemClock,
    open_provider,
)
from metallm_stream.serve.answerer import answerer, call_limits, templates_of
from metallm_stream.serve.calls import Answerer
from metallm_stream.serve.surroundings import connection, names, utc_now
from metallm_stream.serve.vendors import allow_connections, provider_settings
from metallm_stream.serve.worker import Worker
from metallm_stream.settings import Settings


def open_worker(settings: Settings, provider: str) -> Worker:
    """A worker for one configured provider, its surroundings checked."""
    concurrency = settings.worker.concurrency
    vendor = provider_settings(settings, provider, max_connections=concurrency)
    allow_connections(concurrency, "METALLM_WORKER__CONCURRENCY")
    kafka = connection(settings, f"metallm-worker-{provider}")
    topics, admin = names(settings), kafka.admin()
    check(admin, topics, (provider,))
    calls = topics.calls(provider)
    cases = [] if settings.judge.provider is None else [topics.cases]
    health = [] if settings.worker.spend_cap_usd is None else [topics.health]
    require_rights(
        admin,
        reads=[calls, topics.results, *health],
        writes=[topics.results, topics.health, topics.dead_letters(calls), *cases],
        group=f"{topics.prefix}metallm-worker-{provider}",
    )
    clock = SystemClock()
    circuits = Circuits(provider, settings.slot, settings.worker.circuit_share, clock)
    spending = _spending(settings, provider, clock)
    templates = templates_of(settings)
    answer = answerer(
        settings,
        provider,
        circuits,
        spending,
        clock,
        templates=templates,
        concurrency=concurrency,
    )
    return Worker(
        kafka,
        topics,
        provider,
        partial(open_provider, vendor),
        partial(_marked, answer, templates),
        slot=settings.slot,
        limits=call_limits(settings, concurrency),
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
