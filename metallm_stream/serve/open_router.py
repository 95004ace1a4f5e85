"""A router from its settings; nothing starts before its surroundings were checked."""

from __future__ import annotations

import importlib

import numpy as np

from metallm_stream.encode import load_encoder
from metallm_stream.kafka import check, require_rights
from metallm_stream.policy import Chooser, chooser, is_river
from metallm_stream.route import TradeOff
from metallm_stream.serve.router import Router
from metallm_stream.serve.surroundings import budgets, connection, names, utc_now
from metallm_stream.settings import Settings


def open_router(settings: Settings) -> Router:
    """A router, its surroundings checked."""
    kafka = connection(settings, "metallm-router")
    topics, admin = names(settings), kafka.admin()
    check(admin, topics, ())
    require_rights(
        admin,
        reads=(topics.queries, topics.decisions, *topics.compacted),
        writes=(topics.decisions, topics.results, topics.dead_letters(topics.queries)),
        group=f"{topics.prefix}metallm-router",
    )
    encoder = load_encoder(settings.encoder)
    encoder.encode(["its weights are read now, and not when the first query waits"])
    return Router(
        kafka,
        topics,
        encoder,
        open_chooser(settings),
        TradeOff(**settings.objective.model_dump()),
        budgets(settings),
        slot=settings.slot,
        batch_size=settings.router.batch_size,
        linger_s=settings.router.linger_s,
        recent_ids=settings.router.recent_ids,
        rng=np.random.default_rng(settings.router.seed),
        now=utc_now,
    )


def open_chooser(settings: Settings) -> Chooser:
    """The rule of choice that the settings name. River is loaded for a policy of its own alone."""
    router = settings.router
    if not is_river(router.policy):
        return chooser(router.policy, **router.policy_parameters)
    rule: Chooser = importlib.import_module("metallm_stream.serve.river").open_river_rule(settings)
    return rule
