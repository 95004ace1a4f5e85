"""A learner from its settings; nothing starts before its surroundings were checked."""

from __future__ import annotations

from metallm_stream.encode import load_encoder
from metallm_stream.kafka import check, require_rights
from metallm_stream.policy.drift import ResidualWatch
from metallm_stream.postgres import check_revision, open_engine
from metallm_stream.serve.accountant import Accountant
from metallm_stream.serve.drift import DriftWatch
from metallm_stream.serve.fold import Fold
from metallm_stream.serve.learner import Learner
from metallm_stream.serve.publisher import Publisher
from metallm_stream.serve.pupil import open_pupil
from metallm_stream.serve.surroundings import budgets, connection, names, utc_now
from metallm_stream.settings import Settings

POLICY = "ridge"


def open_learner(settings: Settings) -> Learner:
    """A learner, its surroundings checked."""
    kafka = connection(settings, "metallm-learner")
    topics, admin = names(settings), kafka.admin()
    check(admin, topics, ())
    dead = [topic for topic in topics.all(()) if topic.endswith(".dlq")]
    require_rights(
        admin,
        reads=(*topics.joined, topics.models, topics.policy, *dead),
        writes=(topics.policy, *map(topics.dead_letters, topics.joined)),
        group=f"{topics.prefix}metallm-learner",
    )
    check_revision(settings.database())
    engine = open_engine(settings.database(), application_name=f"metallm-learner-{settings.slot}")
    encoder = load_encoder(settings.encoder)
    publisher = Publisher(
        kafka,
        topics,
        engine,
        policy=POLICY,
        encoder=encoder.name,
        dimensions=encoder.dimensions,
        refresh_s=settings.learner.refresh_s,
        keep=settings.learner.policies_kept,
        now=utc_now,
    )
    if not settings.learner.begins_anew:
        publisher.require_same_database()
    accountant = Accountant(
        budgets(settings), topic=topics.policy, refresh_s=settings.learner.refresh_s
    )
    fold = Fold(
        engine,
        accountant,
        _drift_watch(settings),
        open_pupil(settings, encoder.name, encoder.dimensions),
        encoder=encoder.name,
        dimensions=encoder.dimensions,
        slot=settings.slot,
        half_life_s=settings.learner.half_life_s,
        now=utc_now,
    )
    return Learner(
        kafka,
        topics,
        engine,
        fold,
        publisher,
        accountant,
        batch_size=settings.learner.batch_size,
        linger_s=settings.learner.linger_s,
        retention_days=settings.learner.retention_days,
    )


def _drift_watch(settings: Settings) -> DriftWatch:
    detector, factor = settings.learner.drift, settings.learner.drift_factor
    watch = None if detector == "off" else ResidualWatch(detector)
    return DriftWatch(watch, factor=factor, slot=settings.slot)
