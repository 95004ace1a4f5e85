"""From settings to running services: everything that a process needs is constructed here.

Invariant: a service checks topics, tables and encoder before it joins its group, and leaves on
SIGTERM or SIGINT with its work committed.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from types import FrameType

import numpy as np
from pydantic import SecretStr, ValidationError

from metallm_stream.encode import load_encoder
from metallm_stream.errors import ConfigurationError
from metallm_stream.judge import parse, prompt
from metallm_stream.kafka import Connection, TopicNames, check
from metallm_stream.policy import chooser
from metallm_stream.postgres import check_revision, open_engine
from metallm_stream.providers import (
    AnswerSettings,
    ProviderSettings,
    SystemClock,
    answer_call,
    open_provider,
)
from metallm_stream.route import TradeOff
from metallm_stream.serve.learner import Learner
from metallm_stream.serve.publisher import Publisher
from metallm_stream.serve.router import Router
from metallm_stream.serve.worker import Worker
from metallm_stream.settings import Settings, load

POLICY = "ridge"
EXIT_CONFIGURATION = 78
EXIT_CRASH = 70
log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The time, aware UTC."""
    return datetime.now(UTC)


def connection(settings: Settings, client_id: str) -> Connection:
    """The Kafka connection that the settings describe."""
    return Connection(settings.bootstrap(), settings.kafka_properties, client_id)


def names(settings: Settings) -> TopicNames:
    """The names of the topics under the configured prefix."""
    return TopicNames(settings.topics.prefix)


def router(settings: Settings) -> Router:
    """A router, its surroundings checked."""
    kafka = connection(settings, "metallm-router")
    check(kafka.admin(), names(settings), ())
    return Router(
        kafka,
        names(settings),
        load_encoder(settings.encoder),
        chooser(settings.router.policy),
        TradeOff(**settings.objective.model_dump()),
        slot=settings.slot,
        batch_size=settings.router.batch_size,
        linger_s=settings.router.linger_s,
        recent_ids=settings.router.recent_ids,
        rng=np.random.default_rng(settings.router.seed),
        now=utc_now,
    )


def worker(settings: Settings, provider: str) -> Worker:
    """A worker for one configured provider, its surroundings checked."""
    if provider not in settings.providers:
        known = ", ".join(sorted(settings.providers)) or "none"
        raise ConfigurationError(
            f"provider {provider!r} is not configured (there are: {known}): "
            f"set METALLM_PROVIDERS__{provider.upper()}__WIRE"
        )
    kafka = connection(settings, f"metallm-worker-{provider}")
    check(kafka.admin(), names(settings), (provider,))
    answer = partial(
        answer_call,
        prompt=prompt,
        parse=parse,
        settings=AnswerSettings(
            attempt_timeout_s=settings.worker.attempt_timeout_s,
            tries_per_arm=settings.worker.tries,
            retry_budget_s=settings.worker.budget_s,
            backoff_s=settings.worker.backoff_s,
        ),
        clock=SystemClock(),
        rng=np.random.default_rng(),
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
    )


def learner(settings: Settings) -> Learner:
    """A learner, its surroundings checked."""
    kafka = connection(settings, "metallm-learner")
    check(kafka.admin(), names(settings), ())
    check_revision(settings.database())
    engine = open_engine(settings.database(), application_name=f"metallm-learner-{settings.slot}")
    encoder = load_encoder(settings.encoder)
    publisher = Publisher(
        kafka,
        names(settings),
        engine,
        policy=POLICY,
        encoder=encoder.name,
        dimensions=encoder.dimensions,
        slot=settings.slot,
        refresh_s=settings.learner.refresh_s,
        keep=settings.learner.policies_kept,
        now=utc_now,
    )
    return Learner(
        kafka,
        names(settings),
        engine,
        publisher,
        encoder=encoder.name,
        dimensions=encoder.dimensions,
        slot=settings.slot,
        batch_size=settings.learner.batch_size,
        linger_s=settings.learner.linger_s,
        retention_days=settings.learner.retention_days,
        now=utc_now,
    )


def serve(construct: Callable[[Settings], Router | Worker | Learner]) -> None:
    """Read the settings, run one service until it is told to stop, and exit.

    A configuration error is told in one line and ends the process with code 78; any other error
    ends it with a traceback, and whoever supervises it starts it again. It ends at once: clients
    that were fenced or lost their broker may take minutes to be taken down in order.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        log.info("%s: stopping", signal.Signals(number).name)
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("metallm_stream").setLevel(logging.INFO)
    try:
        service = construct(load())
        gc.freeze()  # what start-up has made stays; a full collection of it takes 100 ms
        service.run(stop)
    except ConfigurationError as exc:
        log.critical("%s", exc)
        code = EXIT_CONFIGURATION
    except Exception:
        log.critical("ending, a restart replays what was not committed", exc_info=True)
        code = EXIT_CRASH
    else:
        return
    logging.shutdown()
    os._exit(code)


def _provider(settings: Settings, name: str) -> ProviderSettings:
    entry = settings.providers[name]
    key = os.environ.get(entry.api_key_env, "") if entry.api_key_env else "none"
    if not key:
        raise ConfigurationError(
            f"provider {name!r} takes its key from {entry.api_key_env}, which is not set"
        )
    try:
        return ProviderSettings(
            name=name,
            wire=entry.wire,
            base_url=entry.base_url,
            api_key=SecretStr(key),
            headers={header: SecretStr(value) for header, value in entry.headers.items()},
            max_connections=settings.worker.concurrency,
        )
    except ValidationError as exc:
        raise ConfigurationError(f"provider {name!r}: {exc}") from None  # hides the inputs
