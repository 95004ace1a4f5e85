"""How a service ends that cannot start: by which code, and with how many words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from pydantic import SecretStr

from metallm_stream.errors import Unreachable
from metallm_stream.kafka import Connection, Record, TopicNames, check, to_end, write
from metallm_stream.postgres import check_revision
from tests.processes import eventually

NOBODY = "127.0.0.1:1"
SERVED = """
from metallm_stream.errors import ConfigurationError, Unreachable
from confluent_kafka import KafkaError, KafkaException
from psycopg import errors as postgres
from sqlalchemy.exc import DBAPIError
from metallm_stream.serve.process import serve

def refused(code):
    return KafkaException(KafkaError(code, "by the test"))

def database(error):
    return DBAPIError("SELECT 1", {{}}, error("by the test"))

def fails(settings):
    raise {error}

serve(fails)
"""
SIGNALLED = """
import signal
from metallm_stream.serve import process
from metallm_stream.serve.metrics import LoopMetrics

class Service:
    metrics = LoopMetrics("tried", "0")

    def run(self, stop):
        with stop._cond:  # as who sets it, or waits for it
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
        assert stop.wait(20)

process.serve(lambda settings: Service())
"""
STAYS = """
from metallm_stream.serve import process
from metallm_stream.serve.metrics import LoopMetrics

class Service:
    metrics = LoopMetrics("tried", "0")

    def run(self, stop):
        print("runs", flush=True)
        assert stop.wait(20)

process.serve(lambda settings: Service())
"""


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        ("Unreachable('by the test')", 75, 1),
        ("ConfigurationError('by the test')", 78, 1),
        ("ValueError('by the test')", 70, None),
        ("refused(KafkaError._TIMED_OUT)", 75, 1),
        ("refused(KafkaError._RESOLVE)", 75, 1),
        ("refused(KafkaError._SSL)", 75, 1),
        ("refused(KafkaError._AUTHENTICATION)", 75, 1),
        ("refused(KafkaError.TOPIC_AUTHORIZATION_FAILED)", 78, 1),
        ("refused(KafkaError.INVALID_TIMESTAMP)", 75, 1),
        ("refused(KafkaError._AUTO_OFFSET_RESET)", 70, None),
        ("database(postgres.InsufficientPrivilege)", 78, 1),
        ("database(postgres.ReadOnlySqlTransaction)", 75, 1),
        ("database(postgres.UniqueViolation)", 70, None),
        ("postgres.InsufficientPrivilege('by the test')", 78, 1),
    ],
)
def test_the_exit_code_tells_whether_a_restart_may_help(
    error: str, code: int, lines: int | None
) -> None:
    """It may but for a configuration error; what can be mended from outside is told in one line."""
    ours = ("METALLM_", "KAFKA_", "DATABASE_")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    process = subprocess.run(
        [sys.executable, "-c", SERVED.format(error=error)],
        env=bare,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert process.returncode == code
    assert "by the test" in process.stderr
    assert lines is None or len(process.stderr.splitlines()) == lines
    assert ("Traceback" in process.stderr) == (lines is None)


def test_signals_are_heeded_wherever_they_find_the_service() -> None:
    """Also while it, or the signal before, holds the lock of what they set."""
    process = subprocess.run(
        [sys.executable, "-c", SIGNALLED],
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": NOBODY},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    assert "SIGINT: stopping" in process.stderr


def test_a_service_that_has_left_ends_with_0_whatever_comes_then() -> None:
    """More signals while Python winds up, and a disk that has no room for its log."""
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": NOBODY}
    with (
        Path("/dev/full").open("wb") as full,
        subprocess.Popen(
            [sys.executable, "-c", STAYS], env=environment, stdout=subprocess.PIPE, stderr=full
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"runs\n"
        eventually(lambda: process.send_signal(signal.SIGTERM) or process.poll() is not None)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("redirected", "printed"), [("", "said\n"), (">&-", ""), (">/dev/full", "")]
)
def test_what_code_of_the_user_prints_is_not_lost(redirected: str, printed: str) -> None:
    """A policy's say, where standard output takes anything."""
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": NOBODY}
    environment.pop("PYTHONUNBUFFERED", None)
    says = STAYS.replace('"runs", flush=True', '"said"').replace("assert stop.wait(20)", "")
    process = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirected}', sys.executable, says],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout) == (0, printed)


def test_a_token_that_cannot_be_had_is_no_error_of_the_configuration() -> None:
    """Who gives it may be down for a while."""
    asks = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "me",
        "sasl.oauthbearer.client.secret": "hidden",
        "sasl.oauthbearer.token.endpoint.url": f"http://{NOBODY}/token",
    }
    secrets = {name: SecretStr(value) for name, value in asks.items()}
    with pytest.raises(Unreachable, match="Failed to acquire SASL OAUTHBEARER token"):
        check(Connection(NOBODY, secrets).admin(), TopicNames(), ())


def test_a_database_that_does_not_answer_is_unreachable() -> None:
    """Which is no error of the configuration, or may be none."""
    with pytest.raises(Unreachable, match=r"PostgreSQL cannot be used: .*refused"):
        check_revision(f"postgresql://me:hidden@{NOBODY}/none")


def test_records_that_nobody_acknowledges_in_time_are_unreachable_brokers() -> None:
    """A restart may help."""
    with pytest.raises(Unreachable, match=r"1 record not acknowledged in 0\.1 s"):
        write(Connection(NOBODY).producer(), [Record("queries", None, b"")], 0.1)


def test_a_topic_that_is_not_read_to_its_end_in_time_is_unreachable() -> None:
    """Its brokers are down, or slow."""
    consumer = Connection(NOBODY).reader()
    try:
        with pytest.raises(Unreachable, match="end not reached"):
            list(to_end(consumer, [TopicPartition("policy", 0)], -1.0))
    finally:
        consumer.close()
