"""The life of a service's process: settings, signals, logs and its end.

Invariant: a service leaves on SIGTERM or SIGINT with its work committed, and on an error at once;
a restart replays what was not committed.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from confluent_kafka import KafkaException
from prometheus_client import disable_created_metrics
from threadpoolctl import threadpool_limits

from metallm_stream.errors import ConfigurationError, Unreachable
from metallm_stream.kafka import explained
from metallm_stream.serve.http import exposed
from metallm_stream.serve.logs import begin_log, set_format
from metallm_stream.serve.metrics import LoopMetrics
from metallm_stream.settings import Settings, load

EXIT_STOPPED = 0
EXIT_CONFIGURATION = 78
EXIT_UNREACHABLE = 75
EXIT_CRASH = 70
# Work and its commits are many short steps of threads that take turns; with the usual 5 ms each
# hand-over may wait so long.
SWITCH_S = 0.0005
CRASHED = "ending, a restart replays what was not committed"
log = logging.getLogger(__name__)


class Service(Protocol):
    """What runs until it is told to stop."""

    @property
    def metrics(self) -> LoopMetrics:
        """What it tells of itself."""

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set, then leave in order."""


def serve(construct: Callable[[Settings], Service]) -> None:
    """Read the settings, run one service until it is told to stop, and exit.

    A configuration error is told in one line and ends the process with code 78, which a restart
    does not mend; so is what may pass by itself, with code 75: a server that does not answer or
    takes no writes, a port that is taken, a clock that is off. Any other error ends it with a
    traceback and code 70. After 75 and 70 whoever supervises it starts it again. It ends at once:
    clients that were fenced or lost their broker may take minutes to be taken down in order. So
    it does when it was told to stop and has left: while Python winds up, another signal would kill
    it, and a log that nobody takes would change its exit code.
    """
    stop = threading.Event()
    begin_log()
    _heed_signals(stop)
    try:
        settings = load()
        set_format(settings.log_format, settings.slot)
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's omission
        service = construct(settings)
        sys.setswitchinterval(SWITCH_S)
        gc.freeze()  # what start-up has made stays; a full collection of it takes 100 ms
        gc.set_threshold(20_000)  # a batch is no garbage: looking at it for cycles took a tenth
        # Matrices of this size gain nothing from threads, which on busy cores wait for each other.
        with (
            threadpool_limits(limits=1, user_api="blas"),
            exposed(settings.http, service.metrics, stop),
        ):
            service.run(stop)
    except Exception as exc:  # noqa: BLE001 - it is told or logged, and ends the process
        code = _told(exc)
    else:
        code = EXIT_STOPPED
    logging.shutdown()
    with suppress(OSError, ValueError):
        print(end="", flush=True)  # noqa: T201 - what code of the user's has printed
    os._exit(code)


def _heed_signals(stop: threading.Event) -> None:
    """Set `stop` on SIGTERM or SIGINT, in a thread.

    A handler would run in the midst of whatever the main thread does, and wait for locks of its.
    """
    told, wake = os.pipe()
    os.set_blocking(wake, False)

    def heed() -> None:
        while number := os.read(told, 1):
            log.info("%s: stopping", signal.Signals(number[0]).name)
            stop.set()

    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    threading.Thread(target=heed, name="signals", daemon=True).start()


def _told(error: Exception) -> int:
    """Log why the process ends; the code that it ends with."""
    told: Exception | None = database_refusal(error) or error
    if isinstance(error, KafkaException):
        told = explained(error.args[0])
    if not isinstance(told, ConfigurationError):
        log.critical(CRASHED, exc_info=error)
        return EXIT_CRASH
    log.critical("%s", told)
    return EXIT_UNREACHABLE if isinstance(told, Unreachable) else EXIT_CONFIGURATION


def database_refusal(error: Exception) -> ConfigurationError | None:
    """The line for what PostgreSQL refuses, by its code: routers and workers lack its driver."""
    refused = getattr(error, "orig", error)
    said = f"PostgreSQL refused: {str(refused).partition(chr(10))[0]}"
    match getattr(refused, "sqlstate", None):
        case "42501":
            return ConfigurationError(
                f"{said}; `metallm db roles` prints who may do what, `metallm doctor` tells more"
            )
        case "25006":
            return Unreachable(f"{said}; DATABASE_URL must name a primary that takes writes")
        case _:
            return None
