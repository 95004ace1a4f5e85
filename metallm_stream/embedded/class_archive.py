"""A class-data archive (Java's AOT cache) of Kafka, which makes it start in a third of the time.

Invariant: an archive is an accelerator only. Java itself checks that it fits and goes on without
it where it does not, and where it cannot be made, servers start without it.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path

from metallm_stream.embedded.child import ChildFailed
from metallm_stream.embedded.downloads import exclusively
from metallm_stream.embedded.kafka import JAVA_OPTIONS, Broker, Distribution
from metallm_stream.embedded.kafka_storage import format_storage
from metallm_stream.embedded.ports import free_port
from metallm_stream.embedded.progress import Listener, Progress
from metallm_stream.embedded.supervisor import Supervisor

_log = logging.getLogger(__name__)

_START_WITHIN_S = 60.0
_WRITE_WITHIN_S = 90.0
_TRY_AGAIN_AFTER_S = 24 * 3600
_KEPT = 3


def with_archive(distribution: Distribution, listener: Listener) -> Distribution:
    """The distribution with its archive, which one trial run makes where it is missing.

    A trial that fails leaves its reason beside the archive's place, and is not repeated for a day.
    """
    archive = distribution.home / f"classes-{_fingerprint(distribution)}.aot"
    failure = archive.with_suffix(".failed")
    if not archive.exists() and not _is_recent(failure):
        with exclusively(distribution.home / "lock"):
            if not archive.exists():
                _make(distribution, archive, failure, listener)
    return replace(distribution, archive=archive) if archive.exists() else distribution


def _fingerprint(distribution: Distribution) -> str:
    """Changes with Java, its options, and the jars: what an archive must agree with."""
    digest = hashlib.sha256(" ".join(JAVA_OPTIONS).encode())
    digest.update((distribution.java.parent.parent / "release").read_bytes())
    for jar in distribution.jars:
        status = jar.stat()
        digest.update(f"{jar} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _is_recent(failure: Path) -> bool:
    return failure.exists() and time.time() - failure.stat().st_mtime < _TRY_AGAIN_AFTER_S


def _make(distribution: Distribution, archive: Path, failure: Path, listener: Listener) -> None:
    step = "Preparing Kafka to start fast (once)"
    listener(Progress(step))
    trial = archive.parent / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    try:
        _run_once(distribution, trial, archive.name)
        (trial / archive.name).replace(archive)
    except (ChildFailed, OSError) as exc:
        _log.warning("Kafka will start more slowly, its class archive could not be made: %s", exc)
        failure.write_text(f"{exc}\n\nRemove this file to try again before a day is over.\n")
    shutil.rmtree(trial, ignore_errors=True)
    _forget_old(archive.parent)
    listener(Progress(step, 1))


def _run_once(distribution: Distribution, trial: Path, archive_name: str) -> None:
    """Start a broker on an empty directory and stop it: Java writes the archive as it ends."""
    port = free_port()
    broker = Broker(trial / "broker", port, (free_port(avoid=frozenset({port})),))
    broker.write_properties()
    format_storage(distribution, broker)
    command = distribution.serve(broker, trial / "kafka.log")
    java, *rest = command.argv
    recording = (java, f"-XX:AOTCacheOutput={trial / archive_name}", *rest)
    with Supervisor() as supervisor:
        child = supervisor.run(
            "kafka-trial",
            replace(command, argv=recording, grace_s=_WRITE_WITHIN_S),
            ready=broker.answers,
            restart=False,
        )
        child.wait_ready(_START_WITHIN_S)


def _forget_old(home: Path) -> None:
    """Keep the archives of the last few versions of Java only; each is some 60 MB."""
    archives = sorted(home.glob("classes-*.aot"), key=lambda path: path.stat().st_mtime)
    for archive in archives[:-_KEPT]:
        archive.unlink(missing_ok=True)
