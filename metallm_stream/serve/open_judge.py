"""A judge from its settings; nothing starts before its surroundings were checked."""

from __future__ import annotations

from functools import partial

from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Generation, Model, Price
from metallm_stream.judge import Templates, shipped
from metallm_stream.kafka import check, require_rights
from metallm_stream.providers import (
    Answer,
    Circuits,
    Spending,
    SystemClock,
    cost_usd,
    open_provider,
)
from metallm_stream.serve.answerer import answerer, call_limits, templates_of
from metallm_stream.serve.judge import Judge, Rubric
from metallm_stream.serve.surroundings import connection, names, utc_now
from metallm_stream.serve.vendors import allow_connections, provider_settings
from metallm_stream.settings import JudgeSettings, Settings


def open_judge(settings: Settings) -> Judge:
    """A judge, its surroundings checked; raises `ConfigurationError` if the settings name none."""
    judge, worker = settings.judge, settings.worker
    model = judge_model(judge)
    if model is None or judge.spend_cap_usd is None:
        raise ConfigurationError(
            "no judge is configured: set METALLM_JUDGE__PROVIDER, METALLM_JUDGE__MODEL and "
            "METALLM_JUDGE__SPEND_CAP_USD, the same for workers and judge"
        )
    vendor = provider_settings(settings, model.provider, max_connections=judge.concurrency)
    allow_connections(judge.concurrency, "METALLM_JUDGE__CONCURRENCY")
    kafka = connection(settings, "metallm-judge")
    topics, admin = names(settings), kafka.admin()
    check(admin, topics, ())
    require_rights(
        admin,
        reads=(topics.cases, topics.verdicts, topics.health),
        writes=(topics.verdicts, topics.health, topics.dead_letters(topics.cases)),
        group=f"{topics.prefix}metallm-judge",
    )
    clock, slot = SystemClock(), f"judge-{settings.slot}"
    spending = Spending(model.provider, slot, judge.spend_cap_usd, judge.spend_cap_per, clock)
    circuits = Circuits(model.provider, slot, worker.circuit_share, clock)
    answer = answerer(
        settings,
        model.provider,
        circuits,
        spending,
        clock,
        templates=shipped(),  # the user's own would change what the rubric has written
        concurrency=judge.concurrency,
    )
    return Judge(
        kafka,
        topics,
        _rubric(judge, model, templates_of(settings)),
        partial(open_provider, vendor),
        answer,
        spending,
        slot=settings.slot,
        limits=call_limits(settings, judge.concurrency),
        now=utc_now,
    )


def _rubric(judge: JudgeSettings, model: Model, templates: Templates) -> Rubric:
    generation = Generation(
        temperature=judge.temperature, max_output_tokens=judge.max_output_tokens
    )
    return Rubric(model, templates.by_kind["verdict"], generation, judge.weight)


def judge_model(settings: JudgeSettings) -> Model | None:
    """The judge model, which need not be in the catalogue; None where no judge is configured.

    Raises `ConfigurationError` if nobody knows its price: the cap would be blind.
    """
    if settings.provider is None or settings.model is None:
        return None
    price = None
    if settings.input_usd_per_mtok is not None and settings.output_usd_per_mtok is not None:
        price = Price(
            input_usd_per_mtok=settings.input_usd_per_mtok,
            output_usd_per_mtok=settings.output_usd_per_mtok,
        )
    arm = f"judge:{settings.model}"[:128]
    model = Model(arm=arm, provider=settings.provider, model=settings.model, price=price)
    if cost_usd(model, Answer("", input_tokens=1, output_tokens=1)) is None:
        raise ConfigurationError(
            f"the price of the judge model {settings.model!r} of {settings.provider!r} is not "
            "known, so METALLM_JUDGE__SPEND_CAP_USD could not hold: set "
            "METALLM_JUDGE__INPUT_USD_PER_MTOK and METALLM_JUDGE__OUTPUT_USD_PER_MTOK"
        )
    return model
